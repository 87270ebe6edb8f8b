"""What the numbers and choices that describe a model may be: for the configs of network and world model alike."""

from __future__ import annotations

from typing import Annotated

from gymnast_core.config.ranges import Choices, Range
from gymnast_worldgym.codec import CODECS
from gymnast_worldgym.schedule import TIMESTEPS

# Upper bounds only keep a slip of the finger from asking for more memory than there is.
Pixels = Annotated[int, Range(least=1, most=2**14)]
Channels = Annotated[int, Range(least=1, most=2**12)]
Patch = Annotated[int, Range(least=1, most=2**10)]
Width = Annotated[int, Range(least=4, most=2**16)]
Views = Annotated[int, Range(least=1, most=64)]
PoseWidth = Annotated[int, Range(least=0, most=2**12)]
Layers = Annotated[int, Range(least=1, most=2**10)]
Heads = Annotated[int, Range(least=1, most=2**12)]
ActionWidth = Annotated[int, Range(least=1, most=2**12)]
Window = Annotated[int, Range(least=2, most=10_000)]
"""Frames: at least a context frame and a new one."""
Memory = Annotated[int, Range(least=0, most=9_998)]
"""Frames, beside at least a context frame and a new one."""
Every = Annotated[int, Range(least=1, most=10_000)]
ActionIndex = Annotated[int, Range(least=0, below=2**12)]
Rope = Annotated[str, Choices("standard", "pixel")]
Prediction = Annotated[str, Choices("v", "x0", "flow", "change")]
CodecName = Annotated[str, Choices(*CODECS)]
Alignment = Annotated[str, Choices("previous", "same")]
DenoisingSteps = Annotated[int, Range(least=1, most=TIMESTEPS)]
Guidance = Annotated[float, Range(above=0, most=1000)]
"""At 0 the actions would have no effect."""
Level = Annotated[int, Range(least=0, below=TIMESTEPS)]
Horizon = Annotated[int, Range(least=1, below=10_000)]
