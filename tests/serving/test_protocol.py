"""The same answers as MLflow's own scoring server, and a refusal for everything else."""

import json

import mlflow
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.pyfunc import scoring_server

from fmnist_exp.serving import protocol


def dumps(images: object, key: str = "inputs") -> bytes:
    return json.dumps({key: np.asarray(images).tolist() if isinstance(images, np.ndarray) else images}).encode()


@pytest.fixture(scope="module")
def mlflow_answer(registered):
    model = mlflow.pyfunc.load_model(str(registered.files))

    def answer(body: bytes) -> object:
        found = scoring_server.invocations(body, "application/json", model, model.metadata.get_input_schema())
        return json.loads(found.response)

    return answer


@pytest.mark.parametrize(
    "change",
    [
        lambda images: images,
        lambda images: images[:1],
        lambda images: images + 0.25 * (images < 255),
        lambda images: images[..., np.newaxis],
    ],
    ids=["integers", "one image", "floats", "(N, 28, 28, 1)"],
)
def test_answers_as_mlflow_does(served, mlflow_answer, small, change):
    images = change(small.test.images[:20])
    ours = json.loads(served.answer(dumps(images), 100)[0])
    assert ours == mlflow_answer(dumps(images))
    assert ours == json.loads(served.answer(dumps(images, "instances"), 100)[0])
    assert list(ours["predictions"][0]) == ["label", "name", "probability", *(f"p{label}" for label in range(10))]


@pytest.mark.parametrize(
    "write",
    [
        lambda images: json.dumps({"inputs": images}),
        lambda images: json.dumps({"instances": images}, indent=1),
        lambda images: json.dumps({"params": {"a": [1.5, "b"]}, "inputs": images, "z": None}, separators=(",", ":")),
        lambda images: json.dumps({"inputs": (np.asarray(images)[..., None] + 1e-7).tolist()}),
    ],
    ids=["plain", "indented", "with other keys", "(N, 28, 28, 1)"],
)
def test_large_requests_in_every_form(write):
    content = write(np.full((400, 28, 28), 17).tolist()).encode()
    assert len(protocol.read_images(content, 400)) == 400
    with pytest.raises(protocol.RefusedError, match="at most 399 images"):
        protocol.read_images(content, 399)


def test_large_requests_are_computed_in_parts(served, data, small):
    images = data.test.images[:600]
    rows = json.loads(served.answer(dumps(images), 1000)[0])["predictions"]
    table = served.predictor.predict(images)
    assert [row["label"] for row in rows] == list(table["label"])
    one_by_one = [served.predictor.predict(images[i : i + 1]) for i in (0, 255, 256, 599)]
    assert [int(one["label"].iloc[0]) for one in one_by_one] == [rows[i]["label"] for i in (0, 255, 256, 599)]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=20,
)
flaws = st.sampled_from([None, True, False, "1", [], {}, float("nan"), float("inf"), -1, 256, 10**400])


@st.composite
def images_with_a_flaw(draw):
    pixels = [0] * 784
    pixels[draw(st.integers(0, 783))] = draw(flaws)
    return [[pixels[start : start + 28] for start in range(0, 784, 28)]]


@settings(max_examples=300)
@given(body=st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_body_without_images_is_refused(served, body):
    with pytest.raises(protocol.RefusedError) as refused:
        served.answer(body, 10)
    assert refused.value.status in (400, 413, 422)


@settings(max_examples=300)
@given(value=json_values | images_with_a_flaw(), key=st.sampled_from(protocol.KEYS))
def test_anything_that_is_no_image_is_refused(served, value, key):
    with pytest.raises(protocol.RefusedError) as refused:
        served.answer(json.dumps({key: value}).encode(), 10)
    assert refused.value.status in (413, 422)
    assert str(refused.value).endswith(".")
