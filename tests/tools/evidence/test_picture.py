"""The picture of a page, as a browser draws it once the page says that it is ready."""

import pytest
from PIL import Image

from lowbit.tools.evidence import picture

PAGE = """<!doctype html><body style="margin: 0; background: #123456">
<script>document.documentElement.dataset.ready = "yes"</script>"""


@pytest.mark.browser
def test_a_page_is_drawn_at_its_size(tmp_path):
    page, drawn = tmp_path / "index.html", tmp_path / "page.png"
    page.write_text(PAGE)
    picture.photograph(page, drawn, width=320, height=200)
    with Image.open(drawn) as image:
        assert image.size == (320, 200)
        assert image.convert("RGB").getpixel((300, 190)) == (0x12, 0x34, 0x56)


@pytest.mark.browser
def test_a_page_that_is_never_drawn_leaves_no_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(picture, "_PATIENCE", 0.3)
    page, drawn = tmp_path / "index.html", tmp_path / "page.png"
    page.write_text("<!doctype html>")
    with pytest.raises(TimeoutError, match="no picture was written"):
        picture.photograph(page, drawn, width=320, height=200)
    assert not drawn.exists()
