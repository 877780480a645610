"""The data of the sample shop: the names of its tables, stores, products, supplies and people's names.

Past days are drawn from these lines, so editing them rewrites history (`test_the_past_is_as_it_was_written`).
"""

from datetime import date
from typing import NamedTuple

TABLES = ("raw_customers", "raw_orders", "raw_items", "raw_products", "raw_stores", "raw_supplies")

# Tables with a row for everything that happened; they can be asked for a window of days.
FACTS = frozenset({"raw_orders", "raw_items"})


class SampleStore(NamedTuple):
    """A café. `orders_a_day` is what it settles at on a plain day, before the chain became well known."""

    id: str
    name: str
    opened: date
    tax_rate: float
    opens_at_utc: int
    orders_a_day: float


# Open for nine hours from 07:00 standard time, the whole year: on the west coast that ends at midnight UTC,
# so that a day in UTC is a day of trade everywhere.
HOURS_OPEN = 9

STORES = (
    SampleStore("STO-01", "Philadelphia", date(2010, 3, 1), 0.08, 12, 40.0),
    SampleStore("STO-02", "Chicago", date(2023, 5, 8), 0.1075, 13, 36.0),
    SampleStore("STO-03", "Brooklyn", date(2024, 6, 3), 0.08875, 12, 44.0),
    SampleStore("STO-04", "Portland", date(2025, 3, 10), 0.0, 15, 25.0),
    SampleStore("STO-05", "Austin", date(2025, 10, 6), 0.0825, 13, 33.0),
    SampleStore("STO-06", "San Francisco", date(2026, 5, 4), 0.08625, 15, 40.0),
)
FOUNDED = STORES[0].opened


class Product(NamedTuple):
    """Something to eat or drink; `price` in cents, `popularity` relative to the others."""

    sku: str
    name: str
    type: str
    price: int
    description: str
    popularity: float


PRODUCTS = (
    Product("JAF-001", "the early bird", "jaffle", 900, "egg, cheddar and chives, sealed and toasted", 14),
    Product("JAF-002", "goulash and dash", "jaffle", 1150, "slow beef goulash that stays off your shirt", 8),
    Product("JAF-003", "brie encounter", "jaffle", 1200, "brie, pear and walnut, with a little thyme", 7),
    Product("JAF-004", "hot to tot", "jaffle", 1050, "potato, green chili and pepper jack", 9),
    Product("JAF-005", "monkey business", "jaffle", 850, "banana, hazelnut spread and sea salt", 7),
    Product("BEV-001", "first things first", "beverage", 400, "filter coffee, the roast of the week", 20),
    Product("BEV-002", "flat out white", "beverage", 500, "double espresso under steamed oat milk", 15),
    Product("BEV-003", "chai society", "beverage", 550, "black tea brewed with ginger and cardamom", 7),
    Product("BEV-004", "mango unchained", "beverage", 650, "mango, orange and yogurt smoothie", 6),
    Product("BEV-005", "lemon state of mind", "beverage", 450, "lemonade with mint, still or sparkling", 7),
)


class Supply(NamedTuple):
    """Something a portion needs; `cost` in cents a portion, the same for each of the `skus` it goes into."""

    id: str
    name: str
    cost: int
    perishable: bool
    skus: tuple[str, ...]


_JAFFLES = tuple(product.sku for product in PRODUCTS if product.type == "jaffle")
_BEVERAGES = tuple(product.sku for product in PRODUCTS if product.type == "beverage")
_HOT_CUPS = ("BEV-001", "BEV-002", "BEV-003")
_COLD_CUPS = ("BEV-004", "BEV-005")

SUPPLIES = (
    Supply("SUP-001", "paper sleeve", 6, False, _JAFFLES),
    Supply("SUP-002", "napkin", 2, False, _JAFFLES),
    Supply("SUP-003", "wooden fork", 5, False, ("JAF-002", "JAF-003", "JAF-004")),
    Supply("SUP-004", "sandwich bread", 32, True, _JAFFLES),
    Supply("SUP-005", "butter", 14, True, _JAFFLES),
    Supply("SUP-006", "paper cup, 12 oz", 11, False, _HOT_CUPS),
    Supply("SUP-007", "clear cup, 16 oz", 13, False, _COLD_CUPS),
    Supply("SUP-008", "lid", 4, False, _BEVERAGES),
    Supply("SUP-009", "paper straw", 3, False, _COLD_CUPS),
    Supply("SUP-010", "egg", 28, True, ("JAF-001",)),
    Supply("SUP-011", "cheddar", 41, True, ("JAF-001",)),
    Supply("SUP-012", "chives", 7, True, ("JAF-001",)),
    Supply("SUP-013", "beef goulash", 138, True, ("JAF-002",)),
    Supply("SUP-014", "sour cream", 16, True, ("JAF-002", "JAF-004")),
    Supply("SUP-015", "brie", 96, True, ("JAF-003",)),
    Supply("SUP-016", "pear", 34, True, ("JAF-003",)),
    Supply("SUP-017", "walnuts", 39, False, ("JAF-003",)),
    Supply("SUP-018", "potato", 18, True, ("JAF-004",)),
    Supply("SUP-019", "pepper jack", 47, True, ("JAF-004",)),
    Supply("SUP-020", "green chili", 15, True, ("JAF-004",)),
    Supply("SUP-021", "banana", 21, True, ("JAF-005",)),
    Supply("SUP-022", "hazelnut spread", 44, False, ("JAF-005",)),
    Supply("SUP-023", "sea salt", 1, False, ("JAF-001", "JAF-004", "JAF-005")),
    Supply("SUP-024", "coffee beans", 52, False, ("BEV-001", "BEV-002")),
    Supply("SUP-025", "oat milk", 37, True, ("BEV-002", "BEV-003")),
    Supply("SUP-026", "chai spices", 24, False, ("BEV-003",)),
    Supply("SUP-027", "sugar", 2, False, ("BEV-001", "BEV-003", "BEV-005")),
    Supply("SUP-028", "mango", 82, True, ("BEV-004",)),
    Supply("SUP-029", "orange juice", 33, True, ("BEV-004",)),
    Supply("SUP-030", "yogurt", 29, True, ("BEV-004",)),
    Supply("SUP-031", "lemon", 26, True, ("BEV-005",)),
    Supply("SUP-032", "mint", 9, True, ("BEV-005",)),
)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FIRST_NAMES = _words(
    """
    Aaliyah Adam Aisha Alejandro Alice Amara Andre Anna Arjun Ben Bianca Brian Camila Carlos Chloe Connor
    Daniel Deborah Diego Dylan Elena Elijah Emma Erin Ethan Fatima Felix Gabriel Grace Hannah Hassan Helen
    Hugo Imani Isaac Isabel Ivan Jamal Jasmine Jing Joel Julia Kavya Keiko Kevin Laila Leo Lucia Malik Maria
    Marcus Mei Mia Miguel Nadia Naomi Noah Nora Oliver Olivia Omar Priya Rachel Ravi Rosa Ruth Samuel Sara
    Sofia Tariq Teresa Theo Thomas Uma Victor Wei Will Yara Yusuf Zoe
    """
)
LAST_NAMES = _words(
    """
    Adams Ahmed Alvarez Anderson Baker Bennett Brooks Brown Campbell Castillo Chang Chen Clark Cohen Collins
    Cruz Davis Diaz Edwards Evans Fernandez Fischer Flores Foster Garcia Gomez Gonzalez Gray Green Gupta Hall
    Harris Henry Hernandez Hill Howard Hughes Ibrahim Jackson James Jenkins Johnson Jones Kelly Khan Kim King
    Kowalski Kumar Lee Lewis Lopez Martin Martinez Mitchell Moore Morales Morgan Murphy Myers Nelson Nguyen
    Okafor Ortiz Park Parker Patel Perez Peterson Phillips Price Ramirez Reed Reyes Rivera Roberts Robinson
    Rogers Rossi Russell Sanchez Sato Schmidt Scott Shah Silva Singh Smith Stewart Sullivan Suzuki Taylor
    Thomas Thompson Torres Turner Walker Wang Ward Watson White Williams Wilson Wong Wood Wright Yang Young
    """
)
