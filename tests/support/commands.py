"""The commands that run in this process with canaries in their environment: their options, and what they say."""

from collections.abc import Callable

from support.canaries import encoded, secret

ENTRIES = {
    "main": ["--training.precision", "float32"],
    "train": ["--experiment", "mlp"],
    "baseline": [],
    "mlp": [],
    "cnn": ["--training.precision", "float32"],
    "tune": ["--experiment", "tune_mlp", "--workers", "1"],
    "ensemble": ["--members", "models:/fashion-mnist/1,models:/fashion-mnist/2"],
    "evaluate": [],
    "promote": [],
    "serve": ["--port", "0"],
}
ALL = ", ".join(ENTRIES)
OTHER = {  # secrets that no command needs
    "HTTP_PROXY": f"http://me:{encoded('Proxy')}@127.0.0.1:9",
    "https_proxy": f"http://me:{encoded('Proxy')}@127.0.0.1:9",
    "NO_PROXY": "127.0.0.1",
    "AWS_SECRET_ACCESS_KEY": secret("Key"),
    "MLFLOW_S3_ENDPOINT_URL": f"http://me:{secret('S3')}@127.0.0.1:9",
}

Ran = tuple[int, str]  # exit code; standard output and standard error
Command = Callable[..., Ran]


def one_sentence(ran: Ran, code: int) -> str:
    """Return the last line, the error, after checking the exit code and that there is no traceback."""
    assert ran[0] == code, ran[1]
    assert "Traceback" not in ran[1]
    errors = [line for line in ran[1].splitlines() if line.startswith("fmnist-exp: ")]
    assert len(errors) == 1, ran[1]
    return errors[0]
