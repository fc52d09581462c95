"""What the worker is told when it is started; each option may come from the environment."""

import argparse
import os
import re


def parse(arguments: list[str]) -> argparse.Namespace:
    """Reads the arguments; ends the process with a text when they are wrong."""
    say = argparse.ArgumentParser(prog="causeway blender worker", description=__doc__)
    env = os.environ.get
    say.add_argument("--nats", default=env("GW_NATS_URL", "nats://127.0.0.1:4222"), help="where NATS is")
    say.add_argument("--user", default=env("GW_NATS_USER", ""), help="NATS user")
    say.add_argument("--password", default=env("GW_NATS_PASSWORD", ""), help=argparse.SUPPRESS)
    say.add_argument("--space", default="main", help="the space it serves")
    say.add_argument("--service", default="blender", help="the name it serves under")
    say.add_argument("--allow-code", action="store_true", help="let clients run any code with this user's rights")
    say.add_argument("--allow-exposed", action="store_true", help="also when the gateway is reachable by others")
    say.add_argument("--progress", type=float, default=5.0, help="seconds between signs of life")
    say.add_argument("--no-blender", action="store_true", help="run code in plain Python, without Blender")
    options = say.parse_args(arguments)
    if not re.fullmatch(r"[A-Za-z0-9_=-]{1,128}", options.space):
        say.error("--space is a name of the characters A-Z a-z 0-9 _ -")
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", options.service):
        say.error("--service is a name of the characters A-Z a-z 0-9 _ -")
    return options
