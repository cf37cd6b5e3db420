"""The model behind the server: verified files, loaded by this package's own predictor and run once."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

import numpy as np

from fmnist_exp.errors import WorkError
from fmnist_exp.serving import predictor, protocol


class ServedModel:
    """A model that answers requests; `predictor` is the network in it."""

    def __init__(self, folder: Path, name: str) -> None:
        """Load the model in `folder`, whose files have been verified, and run it once. Raises WorkError if that fails.

        Code that is stored with the model is not run. `name` is shown to users, for example `fashion-mnist version 3`.
        """
        self.name = name
        try:
            self.predictor = predictor.load(folder / "data")
            self.predictor.predict(np.zeros((2, predictor.SIDE, predictor.SIDE), np.uint8))
        except Exception as error:  # damaged files raise whatever their reader raises
            raise WorkError(f"{name} cannot be loaded: {str(error).splitlines()[0]}") from error

    def answer(self, body: bytes, limit: int) -> tuple[bytes, list[str]]:
        """Return the body that answers a request's body, and the names of the classes in it.

        Raises RefusedError if the request is wrong, or has more images than `limit`.
        """
        with _no_collection():
            images = protocol.read_images(body, limit)
            try:
                columns = self.predictor.columns(images)
            except ValueError as error:
                reason = str(error)
                sentence = f"{reason[0].upper()}{reason[1:]}."
                raise protocol.RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, sentence) from error
            finally:
                del images
        return protocol.write_answer(columns), columns["name"].tolist()


@contextmanager
def _no_collection() -> Iterator[None]:
    """Switch the garbage collector off: images are lists without cycles, and it would visit millions of them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
