"""A tiny Llava made on the spot that really sees: it was taught to answer by the brightness of the last image."""

from __future__ import annotations

from pathlib import Path

import torch
from judging import SMALL, make_rollout
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from gymnast_vlm_reward.local_judge import conversation_of
from gymnast_vlm_reward.prompts import load_prompt
from gymnast_vlm_reward.provider import Question

NO, YES = "Final Score: 0", "Final Score: 1"
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }} : {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %} <image> {% else %}{{ part['text'] }}{% endif %}{% endfor %} {% endfor %}"
    "{% if add_generation_prompt %} assistant : {% endif %}"
)


def make_processor() -> LlavaProcessor:
    """Words are tokens; most are unknown to it, which is no matter."""
    words = ["<unk>", "<pad>", "<eos>", "<image>", NO, YES, "system", "user", "assistant", ":", "Frame", "of", "robot"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        pad_token="<pad>",
        eos_token="<eos>",
        extra_special_tokens={"image_token": "<image>"},
    )
    size = {"height": 8, "width": 8}
    images = CLIPImageProcessorPil(size=size, crop_size=size, do_center_crop=False)
    return LlavaProcessor(
        images,
        fast,
        patch_size=4,
        num_additional_image_tokens=1,
        vision_feature_select_strategy="full",
        image_token="<image>",
        chat_template=TEMPLATE,
    )


def make_model(processor: LlavaProcessor) -> LlavaForConditionalGeneration:
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4
    )
    text = LlamaConfig(
        vocab_size=len(processor.tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=1024,
        eos_token_id=2,
        pad_token_id=1,
        bos_token_id=None,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=processor.tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlavaForConditionalGeneration(config)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = 2, 1
    return model


def teach(model: LlavaForConditionalGeneration, processor: LlavaProcessor, steps: int = 80) -> float:
    """Overfit the answers to bright and dark last images; the last loss in nats a token."""
    rollouts = [make_rollout(100 + i, i % 2 == 1) for i in range(8)]
    conversations = [conversation_of(question.prompt.system, question.parts()) for question in map(ask_about, rollouts)]
    inputs = processor.apply_chat_template(
        conversations,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True},
    )
    answers = torch.tensor([[4 + i % 2, 2] for i in range(8)])
    ids = torch.cat([inputs["input_ids"], answers], -1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        logits = model(input_ids=ids, pixel_values=inputs["pixel_values"]).logits[:, -3:-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), answers.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def ask_about(rollout) -> Question:
    indices = SMALL.select(rollout.frame_count)
    return Question(rollout.task, rollout.view(None, indices), indices, SMALL, load_prompt("binary-v1"), {}, False, {})


def save(folder: Path) -> float:
    """Make, teach and write the model; the loss it ended with."""
    processor = make_processor()
    model = make_model(processor)
    loss = teach(model, processor)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return loss
