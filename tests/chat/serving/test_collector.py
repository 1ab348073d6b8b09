"""Proves chat/serving/collector.py: what a server is made of is looked through once."""

from __future__ import annotations

import gc

from chat.serving.collector import YOUNG_OBJECTS, let_go, settle


def test_what_was_made_before_is_left_alone_and_what_comes_later_is_not():
    before, made_before = gc.get_threshold(), [object()]
    try:
        settle()
        made_later: list[object] = [object()]
        young = [each for generation in range(3) for each in gc.get_objects(generation)]
        assert not any(each is made_before for each in young)
        assert any(each is made_later for each in young)
        assert gc.get_threshold() == (YOUNG_OBJECTS, *before[1:])
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)


def test_what_a_process_holds_at_its_end_is_not_looked_through():
    held: list[object] = [object()]
    try:
        let_go()
        assert not any(each is held for each in gc.get_objects())
    finally:
        gc.unfreeze()
