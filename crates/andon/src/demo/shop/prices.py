"""What things cost. Takes in and gives out values only."""

ITEMS = {"mug": 9.50, "shirt": 24.00, "poster": 12.25, "pen": 2.80}
SHIPPING = {"de": 4.90, "at": 5.40, "nl": 5.90, "fr": 6.90, "it": 6.90, "es": 7.40, "pl": 5.40, "gb": 11.90}
MANY = 10
MANY_OFF = 0.10
FREE_FROM = 100.00


def price(item, count):
    """Price of so many of an item, in euro."""
    if count < 1:
        raise ValueError("count must be at least 1")
    total = ITEMS[item] * count
    if count >= MANY:
        total -= total * MANY_OFF
    return round(total, 2)


def shipping(region, goods):
    """What sending goods of this price to a region costs."""
    if goods >= FREE_FROM:
        return 0.0
    return SHIPPING[region]


def checkout(item, count, region):
    """Everything that a customer pays."""
    goods = price(item, count)
    sending = shipping(region, goods)
    return {"goods": goods, "shipping": sending, "total": round(goods + sending, 2)}
