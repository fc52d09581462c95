"""What a user of the real packages types, and what real browsers then draw; both generations."""

import base64

import real

# all of about one size: the next model is drawn with the camera of the last
RED = "box = Box(6, 8, 10)\nbox.color = 'red'\nshow(box, names=['box'])"
GREEN = "ball = Sphere(5)\nball.color = 'green'\nshow(ball, names=['ball'])"
# above what one message of the bus carries, model and exact shapes alike: no two boxes are the same
LARGE = """
boxes = [Pos(i % 21 / 2, i // 21 / 2, 0) * Box(0.4, 0.4, 1 + i / 441) for i in range(441)]
show(*boxes, names=[f'box{i}' for i in range(441)], colors=['blue'] * 441)
"""


def expand(page):
    """Opens the whole tree, as a click on its E does."""
    page.click(".tcv_expand")


def test_a_model_is_drawn_by_every_page_also_later_and_elsewhere(gateway, user, pages, open_page, picture):
    one, two = pages
    user.run(RED)
    user.run("show(box, names=['box'], reset_camera=Camera.RESET)")
    for page in (one, two):
        page.coloured("red")
        expand(page)
        page.shows("Group", "box")
    late, elsewhere = open_page(), open_page(at=gateway.second)
    for page in (late, elsewhere):
        drawn = page.coloured("red")
        # as large as for those who saw it come: its camera is not the logo's
        same = lambda found, drawn=drawn: abs(found["red"] - drawn) < 0.05 * drawn  # noqa: E731
        real.until(one.colours, same, "as large as on the other page")
        expand(page)
        page.shows("box")
    picture(late, "late")
    user.run(GREEN)
    for page in (one, two, late, elsewhere):
        page.coloured("green")
        expand(page)
        page.shows("ball")
        assert "box" not in page.tree()


def test_a_page_that_is_loaded_again_shows_the_model(user, pages):
    page = pages[0]
    user.run(RED)
    page.coloured("red")
    page.do("reload")
    page.coloured("red")


def test_status_follows_a_click(user, pages):
    page = pages[0]
    user.run(RED)
    page.coloured("red")
    assert real.until(lambda: user.run("result = status()"), lambda status: "axes" in status)["axes"] is False
    page.click(".tcv_button_axes")
    real.until(lambda: user.run("result = status()['axes']"), what="axes in status()")
    page.click(".tcv_button_axes")
    real.until(lambda: user.run("result = status()['axes']"), lambda axes: not axes)
    assert user.run("result = workspace_config()['_splash']") is False


def test_a_screenshot_is_a_file_with_the_model(user, pages):
    page, other = pages
    user.run(RED)
    for shown in (page, other):
        shown.coloured("red")
    user.run("import os\nsave_screenshot('shot.png')\nname = os.path.abspath('shot.png')")

    # the package itself gives up after two seconds, which a busy machine may need longer than
    def taken():
        return user.run("result = os.path.exists(name)")

    real.until(taken, what="the screenshot's file")
    inside = user.run("import base64\nresult = base64.b64encode(open(name, 'rb').read()).decode()")
    assert base64.b64decode(inside).startswith(b"\x89PNG")
    found = page.do("count", base64=inside)
    assert found["red"] > found["all"] * 0.02
    user.run("os.remove(name)")


def test_settings_reach_every_page(user, pages):
    one, two = pages
    user.run(RED)
    for page in (one, two):
        page.coloured("red")
    user.run("set_viewer_config(axes=True, transparent=True)")
    for page in (one, two):
        real.until(lambda page=page: page.has(".tcv_btn_click2 .tcv_button_transparent"), what="the pressed button")
        assert page.has(".tcv_btn_click2 .tcv_button_axes")
    user.run("set_viewer_config(axes=False, transparent=False)")
    for page in (one, two):
        pressed = ".tcv_btn_click2 .tcv_button_transparent"
        real.until(lambda page=page, pressed=pressed: not page.has(pressed), what="the released button")


def test_the_other_generations_page_draws_alike(generation, user, pages, open_page, picture):
    user.run("show_clear()")
    # it has nothing but its logo's camera, which a model must not be drawn with
    other = open_page(of="4" if generation == "3" else "3")
    user.run(RED)
    user.run("show(box, names=['box'], reset_camera=Camera.RESET)")
    drawn = pages[0].coloured("red")

    def alike():
        # of canvases that differ by the pages' own margins
        real.until(other.colours, lambda found: abs(found["red"] - drawn) < 0.2 * drawn, f"as large as {drawn}")

    alike()
    picture(other, "other")
    pressed = ".tcv_btn_click2 .tcv_button_blackedges"
    user.run("set_viewer_config(black_edges=True)")
    real.until(lambda: other.has(pressed), what="the pressed button")
    user.run("set_viewer_config(black_edges=False)")
    real.until(lambda: not other.has(pressed), what="the released button")
    other.do("reload")
    alike()


ANIMATE = """
arm = Pos(0, 0, 0) * Box(9, 4, 4)
arm.color, arm.label = 'red', 'arm'
both = Compound(label='both', children=[arm])
show(both)
animation = Animation(both)
animation.add_track('/both/arm', 'rz', [0, 1, 2], [0, 90, 180])
animation.animate(1)
"""


def test_an_animation_can_be_played_on_every_page(user, pages, open_page, picture):
    one, two = pages
    user.run(ANIMATE)
    for page in (one, two):
        page.coloured("red")
        real.until(lambda page=page: page.has(".tcv_cad_animation"), what="the animation's bar")
    late = open_page()
    real.until(lambda: late.has(".tcv_cad_animation"), what="the animation's bar of a late page")
    picture(late, "animation")


def test_a_cleared_view_is_empty_everywhere(user, pages):
    one, two = pages
    user.run(RED)
    for page in (one, two):
        page.coloured("red")
    user.run("show_clear()")
    for page in (one, two):
        real.until(page.colours, lambda found: found["red"] < found["all"] * 0.002, "an empty canvas")
    user.run(RED)
    for page in (one, two):
        page.coloured("red")


def test_a_gateway_that_comes_back_has_model_and_status(gateway, user, pages, open_page):
    page = pages[0]
    user.run(RED)
    page.coloured("red")
    gateway.stop()
    gateway.start()
    fresh = open_page()
    fresh.coloured("red")
    # the page that was open all the time found back by itself, and said so on its console
    user.run(GREEN)
    for shown in (*pages, fresh):
        shown.coloured("green")
    for shown in pages:
        assert all("WebSocket" in line or "ERR_CONNECTION" in line for line in shown.complaints())


# the last one: drawn by software, so many parts keep the pages busy for a while
def test_a_large_model_is_drawn(user, pages, picture):
    one, two = pages
    user.run(LARGE)
    for page in (one, two):
        page.coloured("blue")
    picture(one, "large")
