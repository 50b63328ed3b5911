import unittest

from stock import left


class Left(unittest.TestCase):
    def test_never_falls_below_nothing(self):
        self.assertEqual(left(1, 3), 0)
