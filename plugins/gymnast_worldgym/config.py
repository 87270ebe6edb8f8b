"""What a user may say of a WorldGym model: one field an option."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from gymnast_core.config.ranges import AnyNumber, Choices, Fraction, NotNegative, Seed
from gymnast_worldgym.quantities import (
    ActionIndex,
    ActionWidth,
    Alignment,
    Channels,
    CodecName,
    DenoisingSteps,
    Every,
    Guidance,
    Heads,
    Horizon,
    Layers,
    Level,
    Memory,
    Patch,
    Pixels,
    Prediction,
    Rope,
    Width,
    Window,
)
from gymnast_worldgym.training import PixelWeights
from gymnast_worldgym.vae import VaeBatch

ComputeDtype = Annotated[str, Choices("float32", "bfloat16", "float16", "auto")]


@dataclass(frozen=True)
class WorldGymConfig:
    """Fields at null come from the checkpoint's config.json or its tensors, else from the preset; for random
    weights else from `architecture`. What neither tells of bare weights (a .pt, or a .safetensors file of others)
    is asked for, in one error."""

    preset: str | None = None
    """Settings of a published checkpoint, below your own and those of a checkpoint folder: openx-9-robots or
    bridge-v2."""
    checkpoint: str | None = None
    """Folder written by `gymnast fit`, .safetensors file or published .pt file; null: random weights."""
    device: str = "auto"
    """torch device; auto: cuda where there is one."""
    compute_dtype: ComputeDtype | None = None
    """Dtype of the blocks' matrix products: float32, bfloat16, float16, or auto: bfloat16 where it is fast; null:
    auto with a preset, else float32. The autoencoder's are float32."""
    compile: bool = False
    """Imagine with torch.compile: needs a C++ compiler and a minute at the start; gains little on a CPU."""
    seed: Seed = 0
    """Seed of the initial weights, and of imagining where the caller brings no generator."""

    image_size: list[Pixels] | None = None
    """Frame height and width, pixels; multiples of patch_size, for autoencoder-kl of 8 times that."""
    channels: Channels | None = None
    """Latent channels."""
    patch_size: Patch | None = None
    """Side of a patch, latent pixels."""
    dim: Width | None = None
    """Width of the transformer."""
    layers: Layers | None = None
    """Layers of one spatial and one temporal block."""
    heads: Heads | None = None
    """Attention heads."""
    action_dim: ActionWidth | None = None
    """Width of the model's actions; its last component flags the null action."""
    window: Window | None = None
    """Frames the transformer sees at once, context and new ones together."""
    cameras: list[str] | None = None
    """Names of the cameras that it imagines, the main one first, each in image_size; null: the checkpoint's, else
    one, whatever it is called. Several are predicted together: what one shows, the others agree with. With a
    checkpoint of one camera, training begins with what it knows of its view for each."""
    memory: Memory | None = None
    """Frames of before the window that are shown besides, and take that many of the window's places: those at which
    the robot was nearest to where it is going. For what leaves the window and comes back; 0: none."""
    memory_pose: list[ActionIndex] | None = None
    """With memory: the action dimensions whose sums say where the robot is, such as [0, 1, 2]: displacements."""
    memory_every: Every | None = None
    """With memory: every n-th frame of an episode can be remembered; null: every one."""
    rope: Rope | None = None
    """Spatial positions: standard, or pixel (the published Bridge checkpoint)."""
    prediction: Prediction | None = None
    """What the network predicts: v (published), x0 (best for small models on pixels), flow, or change: what differs
    from the frame before, for cameras that see much that stands still (a room rather than a table)."""
    codec: CodecName | None = None
    """Latents: pixels, or autoencoder-kl (a Stable-Diffusion autoencoder, see vae)."""
    robot: str | None = None
    """Robot whose actions come in, in its own units: bridge, libero_openvla, ... (robots.yaml); null: see below."""
    robot_action_dim: ActionWidth | None = None
    """For other robots: width of the actions; null takes any width up to action_dim."""
    action_scale: list[AnyNumber] | None = None
    """For other robots: model units per robot unit, one for all or one per robot action dimension."""
    action_offset: list[AnyNumber] | None = None
    """For other robots: added after scaling, model units."""
    unit_range: bool = False
    """Actions come in with positions and rotations in -1..1 of the robot's range instead of its own units."""
    action_alignment: Alignment | None = None
    """Training: frame i goes with the action that led to it (previous) or the one chosen at it (same). Imagining
    always feeds the action that leads to a frame."""

    vae: str | None = None
    """Autoencoder of codec autoencoder-kl: a folder as diffusers saves it, or a Hugging Face repository."""
    vae_revision: str | None = None
    """Revision of that repository; null: main. Not for folders."""
    vae_subfolder: str | None = None
    """Folder inside the repository or local folder, often: vae. A preset's is used where the folder has it."""
    vae_batch: VaeBatch | None = None
    """Frames that the autoencoder encodes or decodes at once; null: 8 (1.5 GB of memory at 256 x 256 pixels)."""
    latent_cache: str | None = None
    """Folder where the autoencoder's results on frames are kept, so that training encodes each frame once."""

    denoising_steps: DenoisingSteps | None = None
    """Sampler steps per frame."""
    guidance: Guidance | None = None
    """Classifier-free guidance scale on the action; 1 is none. Needs a model trained with action_dropout."""
    stabilization_level: Level | None = None
    """Diffusion timestep at which context frames are shown; not for prediction flow."""
    horizon: Horizon | None = None
    """Frames denoised together, less than window; null: a whole action chunk, or as much of it as the window holds
    beside a frame of context."""
    streaming: bool | None = None
    """Keep features across the sliding of the window: faster, no longer exact once it slides."""

    short_episodes: Annotated[str, Choices("pad", "leave_out")] = "pad"
    """Training: episodes of less than a window of frames are trained on as far as they go (pad: the frames that are
    missing weigh nothing; 2 are needed), or left out."""
    clean_fraction: Fraction | None = None
    """Training: share of frames that are nearly clean."""
    pure_noise_fraction: Fraction | None = None
    """Training: share of the other frames that are pure noise; with clean_fraction 1 there are no others."""
    action_dropout: Fraction | None = None
    """Training: probability that a clip is trained without its actions."""
    own_previous: Fraction | None = None
    """Training, prediction change: share of the clips whose frames before are the model's own predictions."""
    pixel_weights: PixelWeights | None = None
    """Training: weights on objects and motion; null weighs all pixels equally."""
    camera_weights: list[NotNegative] | None = None
    """Training: share of each camera in the loss, in the order of cameras, up to a common factor; null: the same.
    Give one less whose view moves: its larger errors leave the others little of the training."""
