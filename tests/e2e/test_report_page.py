"""Reports as a browser shows them: the verdict comes first, and nothing is cut at any width or on paper."""

import html
import json
import re
import shutil
import subprocess

import pytest

from dsir_dagster import cli

pytestmark = pytest.mark.e2e

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
#: Widths of a phone's window, half a screen, a laptop, and A4 between its margins, in CSS pixels.
WIDTHS = {"420": 420, "800": 800, "1280": 1280, "paper": 680}
#: Shows the page in frames of these widths, one of them styled as for paper, and writes down what is seen in them.
LOOK = """<!doctype html><meta charset="utf-8"><body><script>
const seen = {}, widths = WIDTHS, box = each => each.getBoundingClientRect();
for (const [name, width] of Object.entries(widths)) {
  const frame = document.createElement("iframe");
  frame.style.cssText = `width: ${width}px; height: 900px; border: 0`;
  frame.onload = () => {
    const page = frame.contentDocument, verdict = page.querySelector(".verdict");
    if (name == "paper") {
      const style = page.querySelector("style");
      const onPaper = style.textContent.replaceAll("@media screen", "@media speech");
      style.textContent = onPaper.replace("@media print", "@media all");
    }
    const shown = selector => [...page.querySelectorAll(selector)].filter(each => box(each).width > 0);
    const inside = name == "paper" ? ", td, th, pre" : "";  // on screen, these scroll in a box of their own
    seen[name] = {
      heading: verdict.querySelector("h2, h3").innerText,
      text: verdict.innerText.replace(/\\s+/g, " "),
      end: box(verdict).bottom,
      page: page.documentElement.scrollWidth,
      cut: shown(".verdict *, .tile, figure svg, p, h1, h2, h3, .document" + inside)
        .filter(each => box(each).right > width + 1).map(each => each.outerHTML.slice(0, 90)),
      plots: shown("figure svg").map(each => each.getAttribute("class")),
      labels: Math.min(...shown("figure svg text").map(each => box(each).height)),
      links: shown("nav a").length,
    };
    if (Object.keys(seen).length == Object.keys(widths).length) {
      const found = document.createElement("pre");
      found.id = "seen";
      found.textContent = JSON.stringify(seen);
      document.body.append(found);
    }
  };
  frame.src = "PAGE";
  document.body.append(frame);
}
</script>"""


def chromium(folder, *arguments):
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--allow-file-access-from-files",
        f"--user-data-dir={folder / 'chromium'}",
        "--virtual-time-budget=15000",
    ]
    return subprocess.run(
        [*command, *arguments], check=True, timeout=90, capture_output=True, text=True
    ).stdout


def look(folder, page):
    """What is seen of a page, by width of the window."""
    looking = folder / "look.html"
    looking.write_text(LOOK.replace("WIDTHS", json.dumps(WIDTHS)).replace("PAGE", page.as_uri()))
    dom = chromium(folder, "--window-size=1400,1000", "--dump-dom", looking.as_uri())
    return json.loads(html.unescape(re.search(r'<pre id="seen">(.*?)</pre>', dom, re.DOTALL)[1]))


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_the_verdict_is_read_first_and_nothing_is_cut(done, tmp_path):
    [(path, verdict, level)] = done.rows(
        "SELECT metadata->>'report', metadata->>'verdict', metadata->>'verdict_level' "
        "FROM latest WHERE asset = 'evaluations'"
    )
    seen = look(tmp_path, done.home / path)
    for name, width in WIDTHS.items():
        found = seen[name]
        assert found["heading"].startswith("Verdict: ") and level in found["text"]
        assert found["text"].count(verdict[1:]) == 1
        assert found["page"] <= width and found["cut"] == []
        assert found["plots"] == 5 * ["narrow" if name == "420" else "broad"]
        assert found["labels"] >= 8
        assert found["links"] == (0 if name == "paper" else 6)
    assert seen["1280"]["end"] < 900  # before anyone scrolls

    assert cli.main(["report", "--html", "--config", str(done.config_path), "--home", str(done.home)]) == 0
    for name, found in look(tmp_path, done.home / "report.html").items():
        assert found["page"] <= WIDTHS[name] and found["cut"] == []
        assert verdict[1:] in found["text"] and level in found["heading"]
