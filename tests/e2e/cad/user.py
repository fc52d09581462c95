"""A user's Python session with the real packages: one JSON line of code in, one JSON line of what came of it out."""

import contextlib
import io
import json
import sys
import traceback

names: dict = {}
answers = sys.stdout
for line in sys.stdin:
    code = json.loads(line)
    said, answer = io.StringIO(), {}
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            names.pop("result", None)
            exec(compile(code, "<user>", "exec"), names)
        except BaseException:
            answer["error"] = traceback.format_exc()
    answer |= {"said": said.getvalue(), "result": names.get("result")}
    print(json.dumps(answer, default=str), file=answers, flush=True)
