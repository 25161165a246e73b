"""Tests of what needs no torch: `python3 -m unittest` in this folder."""

import struct
import unittest

import patching


class Patching(unittest.TestCase):
    def test_addresses_are_put_where_the_recording_had_its_own(self):
        recorded = {"hex": "00" * 8 + "a57f" * 4 + "ff" * 8, "places": [[8, 1, 48], [0, 0, 0]]}
        raw = patching.patched(recorded, [0x1000, 0x2000])
        self.assertEqual(struct.unpack("<QQQ", raw), (0x1000, 0x2030, 0xFFFFFFFFFFFFFFFF))

    def test_a_buffer_that_is_not_there_is_an_error(self):
        with self.assertRaises(IndexError):
            patching.patched({"hex": "00" * 8, "places": [[0, 2, 0]]}, [0x1000])

    def test_small_rows_have_many_sets_and_large_ones_three(self):
        self.assertEqual(patching.sets_of(768 << 20, 50 << 20), 3)
        self.assertEqual(patching.sets_of(10 << 20, 50 << 20), 20)
        self.assertEqual(patching.sets_of(1, 50 << 20), patching.SETS_MAX)

    def test_graphs_are_long_and_replays_bounded(self):
        self.assertEqual(patching.rounds_of(1000.0), 1)
        self.assertEqual(patching.rounds_of(100.0), 4)
        self.assertEqual(patching.rounds_of(0.0), patching.ROUNDS_MAX)
        self.assertEqual(patching.replays_of(500.0), patching.REPLAYS)
        self.assertEqual(patching.replays_of(1e9), patching.REPLAYS_MIN)

    def test_names_tell_their_group(self):
        self.assertEqual(patching.family("x.12"), ("x", 12))
        self.assertEqual(patching.family("out"), ("out", None))

    def test_json_gets_no_nan(self):
        self.assertEqual([patching.finite(x) for x in (1.5, float("nan"), float("inf"))], [1.5, None, None])


if __name__ == "__main__":
    unittest.main()
