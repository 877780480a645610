"""A worker that does as it is told, to see what its caller makes of it: an app of its own."""

import os
import sys
import time
from pathlib import Path

import modal

app = modal.App("misbehaving")


@app.function(name="forecast", image=modal.Image.debian_slim())
def forecast(request: bytes, code: str, cores: int) -> dict[str, object]:
    """`request` is a command, and what it is about after a colon."""
    command, _, about = request.partition(b":")
    if command == b"raise":
        raise ValueError(about.decode())
    if command == b"exit":
        sys.exit(int(about))
    if command == b"crash":
        os._exit(3)
    if command == b"eat":
        held = [bytearray(b"x" * (16 << 20)) for _ in range(int(about) // 16)]
        return {"code": code, "answer": str(len(held)).encode()}
    if command == b"wait":
        print(f"waiting for {about.decode()}", flush=True)
        while not Path(about.decode()).exists():
            time.sleep(0.01)
        print("the wait is over", flush=True)
    return {"code": code, "answer": about}
