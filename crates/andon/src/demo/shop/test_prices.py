"""What the shop promises about prices."""

import unittest

from shop import prices


class PricesTest(unittest.TestCase):
    def test_two_mugs_cost_twice_as_much_as_one(self):
        self.assertEqual(prices.price("mug", 2), 19.00)

    def test_ten_of_a_kind_are_a_tenth_cheaper(self):
        self.assertEqual(prices.price("mug", 10), 85.50)

    def test_nothing_cannot_be_bought(self):
        with self.assertRaises(ValueError):
            prices.price("mug", 0)

    def test_sending_depends_on_the_region(self):
        self.assertLess(prices.shipping("de", 10), prices.shipping("gb", 10))

    def test_large_orders_are_sent_for_nothing(self):
        self.assertEqual(prices.shipping("gb", 100), 0)

    def test_the_total_is_goods_and_sending(self):
        paid = prices.checkout("shirt", 1, "de")
        self.assertEqual(paid["total"], 28.90)
