"""LossyChannelLayer: the layer that tests lose messages with."""

from __future__ import annotations

import pytest

from chat.testing import LossyChannelLayer

MEMORY = {"BACKEND": "channels.layers.InMemoryChannelLayer", "CONFIG": {"capacity": 1000}}


async def heard(share: float, *, messages: int = 400, seed: int = 1) -> list[int]:
    """Which of the messages to a group of one came through."""
    layer = LossyChannelLayer(layer=MEMORY, share=share, seed=seed)
    channel = await layer.new_channel()
    await layer.group_add("all", channel)
    for number in range(messages):
        await layer.group_send("all", {"type": "told", "number": number})
    return [(await layer.receive(channel))["number"] for _ in range(messages - layer.dropped)]


async def test_all_or_nothing_comes_through_at_the_ends_of_the_scale():
    assert await heard(0) == list(range(400))
    assert await heard(1) == []


async def test_a_share_is_lost_and_the_rest_keeps_its_order():
    came = await heard(0.5)
    assert 120 < len(came) < 280
    assert came == sorted(came)


async def test_a_seed_loses_the_same_messages_again():
    assert await heard(0.5, seed=7) == await heard(0.5, seed=7)
    assert await heard(0.5, seed=7) != await heard(0.5, seed=8)


async def test_a_message_to_one_channel_may_be_lost_too():
    layer = LossyChannelLayer(layer=MEMORY)
    await layer.send(await layer.new_channel(), {"type": "told"})
    assert layer.dropped == 1


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_that_cannot_be_is_refused(share: float):
    with pytest.raises(ValueError, match="expected 0 to 1"):
        LossyChannelLayer(layer=MEMORY, share=share)
