"""The model behind the server: verified files, loaded by this package's own predictor and run once."""

from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path

import numpy as np
import pandas as pd

from fmnist_exp.errors import WorkError
from fmnist_exp.serving import predictor, protocol


class ServedModel:
    """A model for both servers: MLflow's scoring server uses `metadata` and `predict`, this package's uses `answer`."""

    def __init__(self, folder: Path, name: str) -> None:
        """Load the model in `folder`, whose files have been verified, and run it once. Raises WorkError if that fails.

        Code that is stored with the model is not run. `name` is shown to users, for example `fashion-mnist version 3`.
        """
        from mlflow.models import Model  # late: the server listens before MLflow is imported

        self.name = name
        try:
            self.metadata = Model.load(str(folder / "MLmodel"))
            self._predictor = predictor.load(folder / "data")
            self._predictor.predict(np.zeros((2, predictor.SIDE, predictor.SIDE), np.uint8))
        except Exception as error:  # damaged files raise whatever their reader raises
            raise WorkError(f"{name} cannot be loaded: {str(error).splitlines()[0]}") from error

    def predict(self, images: object, params: Mapping[str, object] | None = None) -> pd.DataFrame:
        """Return the predictor's table."""
        return self._predictor.predict(images, params)

    def answer(self, body: bytes, limit: int) -> tuple[bytes, list[str]]:
        """Return the body that answers a request's body, and the names of the classes in it.

        Raises RefusedError if the request is wrong, or has more images than `limit`.
        """
        images = protocol.read_images(body, limit)
        try:
            columns = self._predictor.columns(images)
        except ValueError as error:
            reason = str(error)
            sentence = f"{reason[0].upper()}{reason[1:]}."
            raise protocol.RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, sentence) from error
        return protocol.write_answer(columns), columns["name"].tolist()
