"""Who likes what: container and reader (UCI Restaurant and consumer data)."""

from __future__ import annotations

import zipfile
import zlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ..book.arguments import check_arguments
from .reading import broken, csv_rows, missing
from .rows import Rows

__all__ = ["Place", "Ratings", "read_uci_restaurant"]


@dataclass(frozen=True)
class Place:
    """A restaurant. Attributes hold the file's own words (`Wine-Beer`, `medium`); `?`
    is read as an empty text.

    id, name, city: which restaurant.
    cuisines, payments, parking: what it offers, each several or none.
    price, alcohol, smoking, dress, accessibility, ambience, area, services: one word
    of the file each.
    """

    id: str
    name: str
    city: str
    cuisines: tuple[str, ...]
    payments: tuple[str, ...]
    parking: tuple[str, ...]
    price: str
    alcohol: str
    smoking: str
    dress: str
    accessibility: str
    ambience: str
    area: str
    services: str

    @property
    def text(self) -> str:
        "The restaurant in words, for a language model; empty attributes are left out."
        told = {
            "cuisine": ", ".join(self.cuisines),
            "price": self.price,
            "alcohol": self.alcohol,
            "smoking": self.smoking,
            "dress": self.dress,
            "ambience": self.ambience,
            "area": self.area,
            "accessibility": self.accessibility,
            "parking": ", ".join(self.parking),
            "payment": ", ".join(self.payments),
            "other services": self.services,
        }
        words = "; ".join(f"{k}: {v}" for k, v in told.items() if v)
        return f"{self.name}. {words}".replace("_", " ")


@dataclass(frozen=True)
class Ratings(Rows):
    """One row for each user and item that the user rated.

    users, items: their ids.
    ratings, food, service: 0 (bad), 1 or 2 (good): overall, the food, the service.
    part: `all`.
    places: item id -> what is known of the item.
    source: `folder` or `upstream`: where the rows come from.

    Of the users nothing but their ratings is loaded: the files' personal traits
    (religion, weight, year of birth and so on) are left where they are.
    """

    users: list[str]
    items: list[str]
    ratings: list[int]
    food: list[int]
    service: list[int]
    part: list[str]
    places: dict[str, Place]
    source: str
    COLUMNS: ClassVar = ("users", "items", "ratings", "food", "service", "part")

    def __post_init__(self):
        self._check_columns()
        if lacking := set(self.items) - set(self.places):
            raise ValueError(
                f"{self.name}: nothing is known of item {sorted(lacking)[0]!r}"
            )

    def where(self, part=None, user=None, item=None) -> Ratings:
        "The ratings of these parts, by these users, of these items; the order is kept."
        return self._where(
            ("part", part, self.part, "parts"),
            ("user", user, self.users, "users"),
            ("item", item, self.items, "items"),
        )


def _many(rows: list[dict[str, str]], column: str) -> dict[str, tuple[str, ...]]:
    found = defaultdict(list)
    for r in rows:
        found[r["placeID"]].append(r[column].strip())
    return {place: tuple(dict.fromkeys(values)) for place, values in found.items()}


def read_uci_restaurant(folder: Path) -> Ratings:
    "All ratings, and the restaurants that they are about."
    path = folder / "restaurant-data-with-consumer-ratings.zip"
    if not path.is_file():
        raise missing(path)

    def table(file: str, *columns: str) -> list[dict[str, str]]:
        with zipfile.ZipFile(path) as z:
            return csv_rows(z.read(file).decode("utf-8"), path / file, columns)

    try:
        rated = table(
            "rating_final.csv",
            "userID",
            "placeID",
            "rating",
            "food_rating",
            "service_rating",
        )
        kinds = _many(table("chefmozcuisine.csv", "placeID", "Rcuisine"), "Rcuisine")
        pay = _many(table("chefmozaccepts.csv", "placeID", "Rpayment"), "Rpayment")
        parking = _many(
            table("chefmozparking.csv", "placeID", "parking_lot"), "parking_lot"
        )
        known = table(
            "geoplaces2.csv",
            "placeID",
            "name",
            "city",
            "price",
            "alcohol",
            "smoking_area",
            "dress_code",
            "accessibility",
            "Rambience",
            "area",
            "other_services",
        )
    except (
        OSError,
        EOFError,
        KeyError,
        UnicodeDecodeError,
        zlib.error,
        zipfile.BadZipFile,
    ) as e:
        raise broken(path, f"{type(e).__name__}: {e}") from e
    places = {}
    for r in known:
        key = r["placeID"]
        one = {c: "" if v.strip() == "?" else v.strip() for c, v in r.items()}
        places[key] = Place(
            key,
            one["name"],
            one["city"],
            kinds.get(key, ()),
            pay.get(key, ()),
            parking.get(key, ()),
            one["price"],
            one["alcohol"],
            one["smoking_area"],
            one["dress_code"],
            one["accessibility"],
            one["Rambience"],
            one["area"],
            one["other_services"],
        )
    scores = [
        [int(r[c]) for r in rated] for c in ("rating", "food_rating", "service_rating")
    ]
    return Ratings(
        "uci_restaurant",
        [r["userID"] for r in rated],
        [r["placeID"] for r in rated],
        *scores,
        ["all"] * len(rated),
        places,
        "folder",
    )


check_arguments(globals())
