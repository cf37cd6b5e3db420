from fmnist_exp.registry.document import Document, Heading, Paragraph, Picture, Points, Table, to_html, to_markdown

PNG = b"\x89PNG\r\n\x1a\n"
BLOCKS = [
    Heading("A & B"),
    Paragraph("1 < 2 | 3"),
    Points(["one", "two"]),
    Table([("a", "1"), ("b", "2|3")], ("name", "value")),
    Table([("a", "1")]),
    Picture("figure.png", 'a "picture"'),
]


def test_markdown():
    assert to_markdown(Document("Title", BLOCKS)).split("\n\n") == [
        "# Title",
        "## A & B",
        "1 &lt; 2 \\| 3",
        "- one\n- two",
        "| name | value |\n| --- | ---: |\n| a | 1 |\n| b | 2\\|3 |",
        "|  |  |\n| --- | --- |\n| a | 1 |",
        '![a "picture"](figure.png)\n',
    ]


def test_html_is_one_file_and_escapes(tmp_path):
    (tmp_path / "figure.png").write_bytes(PNG)
    page = to_html(Document("<script>", BLOCKS), tmp_path)
    assert "<script>" not in page
    assert "<h2>A &amp; B</h2>" in page
    assert "<li>one</li>" in page
    assert "<th>name</th>" in page
    assert 'src="data:image/png;base64,' in page
    assert 'alt="a &quot;picture&quot;"' in page
    assert "http" not in page
