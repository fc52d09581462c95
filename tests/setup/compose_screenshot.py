"""Asks the running compose stack for the CAD viewer's page, and for a screenshot from outside its containers: a page
answers, and the file is where the script named it, on this side of the mount and by this side's user."""

import asyncio
import base64
import os
import pathlib
import re
import sys
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "python"))

from viewer import PNG, Scripts, joined, page, picture  # noqa: E402 the path comes first

PORT = int(os.environ["CAD_PORT"])
FOLDER = pathlib.Path(os.environ["SCREENSHOTS"])
# one for each run: what was said in an earlier one would be told to the page first
SPACE = f"outside{time.time_ns()}"
WAIT = 60


def fetch(path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}{path}", timeout=10) as answer:
        return answer.read()


def pages() -> None:
    """Both generations are in the image, with what they refer to."""
    for path, base in (("/viewer", "/"), ("/viewer/3/", "/viewer/3/")):
        text = fetch(path).decode()
        scripts = set(re.findall(r'"(?:\./)?(static/[^"]+\.js)"', text))
        assert scripts, f"{path} refers to no script"
        for script in scripts:
            assert fetch(base + script), script


async def screenshot() -> pathlib.Path:
    file = FOLDER / "from outside.png"
    file.unlink(missing_ok=True)
    async with asyncio.timeout(WAIT), page(PORT, SPACE) as viewer:
        scripts = Scripts(PORT, SPACE)
        await joined(scripts, viewer)
        await scripts.tell("C", {"type": "screenshot", "filename": str(file)})
        await picture(viewer)
        while not file.exists():
            await asyncio.sleep(0.05)
    assert file.read_bytes() == base64.b64decode(PNG)
    assert file.stat().st_uid == os.getuid(), f"the file is of user {file.stat().st_uid}"
    return file


pages()
print(f"compose-test: screenshot: {asyncio.run(screenshot())}", flush=True)
