"""MLflow's scoring protocol for one tensor of images: a request's body becomes images, and answers become a body.

MLflow's own handler converts through pandas, and its errors repeat the input with a stack trace. This one answers the
same requests with the same JSON, which a test compares, in a fraction of the time.
"""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus

import numpy as np
from numpy.typing import NDArray

from fmnist_exp.serving.asgi import Headers

KEYS = ("inputs", "instances")
TYPE = "application/json"
JSON: Headers = [(b"content-type", TYPE.encode())]

# What is left of an image when its numbers and the space around them are taken away, as (28, 28) and as (28, 28, 1).
NUMBERS = b"0123456789+-.eE \t\r\n"
IMAGES = tuple(b"[" + b",".join([b"[" + b",".join([pixel] * 28) + b"]"] * 28) + b"]" for pixel in (b"", b"[]"))
REST = 2**17  # bytes that are parsed although they do not have the form of an image

# MLflow's names, so that its clients understand them
CODES = {
    HTTPStatus.BAD_REQUEST: "BAD_REQUEST",
    HTTPStatus.FORBIDDEN: "PERMISSION_DENIED",
    HTTPStatus.NOT_FOUND: "ENDPOINT_NOT_FOUND",
    HTTPStatus.METHOD_NOT_ALLOWED: "BAD_REQUEST",
    HTTPStatus.REQUEST_TIMEOUT: "DEADLINE_EXCEEDED",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "REQUEST_LIMIT_EXCEEDED",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "BAD_REQUEST",
    HTTPStatus.UNPROCESSABLE_ENTITY: "INVALID_PARAMETER_VALUE",
    HTTPStatus.SERVICE_UNAVAILABLE: "TEMPORARILY_UNAVAILABLE",
    HTTPStatus.GATEWAY_TIMEOUT: "DEADLINE_EXCEEDED",
}


class RefusedError(Exception):
    """A refused request: its HTTP status, and one sentence that says why and what to do."""

    def __init__(self, status: HTTPStatus, sentence: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        super().__init__(sentence)
        self.status = status
        self.headers: Headers = [*JSON, *headers]

    def body(self) -> bytes:
        """Return the body of the answer, in the form of MLflow's errors."""
        return json.dumps({"error_code": CODES.get(self.status, "INTERNAL_ERROR"), "message": str(self)}).encode()


def check_headers(headers: Mapping[bytes, bytes]) -> None:
    """Raise RefusedError if the headers announce a body that is not JSON in UTF-8."""
    content_type = headers.get(b"content-type", b"").decode("latin-1").lower()
    kind, *parameters = map(str.strip, content_type.split(";"))
    if kind != TYPE:
        raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Send JSON with the header Content-Type: {TYPE}.")
    if any(parameter.replace('"', "") != "charset=utf-8" for parameter in parameters if parameter):
        raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Send {TYPE} in UTF-8 and without other parameters.")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send the body without a Content-Encoding.")


def read_images(body: bytes, limit: int) -> list[object]:
    """Return the images of a body as nested lists, whose content the predictor checks.

    Raises RefusedError if the body has no list of images, more than `limit` of them, or pixels that are no numbers.
    """
    _check_form(body, limit)
    try:
        request = json.loads(body, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise RefusedError(HTTPStatus.BAD_REQUEST, "The body is not valid JSON.") from error
    given = [key for key in KEYS if key in request] if isinstance(request, dict) else []
    if len(given) != 1:
        sentence = 'The body must be a JSON object with the images under "inputs" or "instances".'
        raise RefusedError(HTTPStatus.BAD_REQUEST, sentence)
    images = request[given[0]]
    if not isinstance(images, list):
        raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, f'"{given[0]}" must be a list of images.')
    if len(images) > limit:
        raise _too_many(limit)
    # NumPy would read true as 1, and give each pixel as much memory as the longest text among them needs
    suspicious = b"true" in body or b"false" in body or body.count(b'"') > 2 * len(request)
    if suspicious and _holds(images, (bool, str)):
        raise RefusedError(
            HTTPStatus.UNPROCESSABLE_ENTITY, "Pixel values must be numbers, neither true or false nor text."
        )
    return images


def _check_form(body: bytes, limit: int) -> None:
    """Raise RefusedError if parsing the body would cost more than parsing as many images.

    Lists in lists take many times the memory and time of their text. The brackets and commas of a body have therefore
    to be those of at most `limit` images, apart from a rest that is so small that it may have any form.
    """
    marks = body.translate(None, NUMBERS)
    if len(marks) <= REST:
        return
    start = marks.find(b"[[[") + 1
    given = marks[start : marks.rfind(b"]]]") + 2]
    for image in IMAGES:
        number, left = divmod(len(given) + 1, len(image) + 1)
        if left == 0 and given == b",".join([image] * number):
            if number > limit:
                raise _too_many(limit)
            if len(marks) - len(given) <= REST:
                return
    sentence = "The body is not a JSON object with a list of images of 28 rows of 28 numbers."
    raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, sentence)


def _too_many(limit: int) -> RefusedError:
    return RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"Send at most {limit:,} images in one request.")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return a JSON object. Raises ValueError if a key is given twice, since readers disagree on which one counts."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is given twice")
    return found


def _holds(images: list[object], kinds: tuple[type, ...]) -> bool:
    waiting: list[object] = [images]
    while waiting:
        part = waiting.pop()
        if isinstance(part, kinds):
            return True
        if isinstance(part, list):
            waiting += part
    return False


def write_answer(columns: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Return a body with one record per image, in the JSON form that MLflow gives the predictor's table."""
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return json.dumps({"predictions": [dict(zip(columns, row, strict=True)) for row in rows]}).encode()
