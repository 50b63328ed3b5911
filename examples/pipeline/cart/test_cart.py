import unittest

from cart import total


class Total(unittest.TestCase):
    def test_of_nothing_is_nothing(self):
        self.assertEqual(total([]), 0)

    def test_is_the_sum(self):
        self.assertEqual(total([1, 2]), 3)
