"""docs/interface.md says what the code says."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_interface_page_is_what_the_code_gives():
    spec = importlib.util.spec_from_file_location("interface", ROOT / "docs" / "interface.py")
    assert spec
    assert spec.loader
    interface = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(interface)
    assert interface.PAGE.read_text(encoding="utf-8") == interface.page(), "run: python docs/interface.py"
