"""A model that is being served: its files checked, loaded by this package's own predictor, run once."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fmnist_exp.errors import WorkError
from fmnist_exp.serving import predictor, protocol

if TYPE_CHECKING:
    import pandas as pd


class ServedModel:
    """What MLflow's scoring server calls a model: metadata and `predict`; and `answer`, from body to body."""

    def __init__(self, folder: Path, name: str) -> None:
        """Load and warm the model in `folder`, whose checksums have been compared.

        Nothing of the code that travels with the model is run.

        Args:
            folder: as MLflow downloads it.
            name: how to name it to users, as `fashion-mnist version 3`.

        Raises:
            WorkError: it cannot be loaded.
        """
        from mlflow.models import Model

        self.name = name
        try:
            self.metadata = Model.load(str(folder / "MLmodel"))
            self._predictor = predictor.load(folder / "data")
            self._predictor.predict(np.zeros((2, predictor.SIDE, predictor.SIDE), np.uint8))
        except Exception as error:
            raise WorkError(f"{name} cannot be loaded: {str(error).splitlines()[0]}") from error

    def predict(self, images: Any, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """The predictor's table."""
        return self._predictor.predict(images, params)

    def answer(self, body: bytes, limit: int) -> tuple[bytes, list[str]]:
        """The body of the answer to a request's body, and the names of the classes in it.

        Raises:
            protocol.RefusedError: with what is wrong with the request.
        """
        images = protocol.read_images(body, limit)
        try:
            columns = self._predictor.columns(images)
        except ValueError as error:
            sentence = str(error)
            raise protocol.RefusedError(
                HTTPStatus.UNPROCESSABLE_ENTITY, sentence[0].upper() + sentence[1:] + "."
            ) from error
        return protocol.write_answer(columns), columns["name"].tolist()
