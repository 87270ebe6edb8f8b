"""OpenVLA-OFT: a vision-language-action policy with parallel decoding of discrete action chunks."""

from gymnast_core.training.lightly import COMPILER, COMPILER_MARKS
from gymnast_core.training.standing_in import called_later, stand_in

# What transformers imports for losses of object detectors and for masks that are compiled is most of its import.
for _loss in ("deformable_detr", "for_object_detection", "grounding_dino", "lw_detr", "rf_detr", "rt_detr"):
    stand_in(
        f"transformers.loss.loss_{_loss}",
        "scipy.optimize",
        {"linear_sum_assignment": called_later("scipy.optimize", "linear_sum_assignment")},
    )
_TRACING = "torch._dynamo._trace_wrapped_higher_order_op"
stand_in(
    "transformers.masking_utils",
    _TRACING,
    {"TransformGetItemToIndex": called_later(_TRACING, "TransformGetItemToIndex")},
)
for _marked in ("generation.continuous_batching.cache", "integrations.flex_attention", "modeling_utils"):
    stand_in(f"transformers.{_marked}", COMPILER, COMPILER_MARKS)
