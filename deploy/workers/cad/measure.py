"""Upstream's measurements, of whichever generation is installed: exact shapes and a selection in, an answer out."""

import contextlib
import logging
import sys

log = logging.getLogger(__name__)

# names of the page's own report
TOOL, SELECTED = "activeTool", "selectedShapeIDs"


def backend():
    """The package's own class, and its words for a model and for a page's report."""
    with contextlib.redirect_stdout(sys.stderr):
        try:
            from ocp_viewer_core.backend import ViewerBackend
            from ocp_viewer_core.comms import MessageType

            return ViewerBackend(), MessageType
        except ImportError:
            from ocp_vscode import backend as earlier

            # sends its answer by itself, unless it is told that its host is one that takes it
            earlier.is_jupyter_cadquery = True
            return earlier.ViewerBackend(0), earlier.MessageType


class Measure:
    """The model of a space and what is selected in it. For one thread."""

    def __init__(self):
        self._backend, self._kind = backend()
        self._backend.model = {}
        self._asked = None

    def load(self, exact: dict) -> None:
        """Takes the exact shapes of the model shown: `{"model": ...}`, as scripts send them."""
        self._asked = None
        model = exact.get("model")
        with contextlib.redirect_stdout(sys.stderr):
            if model:
                self._backend.load_model(model)
            else:
                self._backend.model = {}

    def report(self, told: dict):
        """What a page reports; the answer when it selected something to be measured, else None."""
        who, keys = told["who"], told["keys"]
        if TOOL in keys:
            tool = keys[TOOL]
            self._backend.activated_tool = None if tool == "None" else tool
        if SELECTED not in keys:
            return None
        # the earlier page repeats tool and selection with whatever it reports: each turn of the camera
        asked = (who, self._backend.activated_tool, keys[SELECTED])
        if asked == self._asked:
            return None
        self._asked = asked
        return self.ask(self._backend.activated_tool, keys[SELECTED])

    def ask(self, tool, selected):
        """The answer of one tool for a selection; None where the tool cannot use it."""
        before, self._backend.activated_tool = self._backend.activated_tool, tool
        try:
            with contextlib.redirect_stdout(sys.stderr):
                if tool is None or not self._known(selected):
                    return None
                return self._backend.handle_event({SELECTED: selected}, self._kind.UPDATES)
        finally:
            self._backend.activated_tool = before

    def _known(self, selected) -> bool:
        shapes = [one for one in selected if isinstance(one, str)] if isinstance(selected, list) else []
        unknown = [shape for shape in shapes if shape not in self._backend.model]
        if unknown:
            log.warning("no exact shape of %s: not measured", ", ".join(unknown))
        return bool(shapes) and not unknown
