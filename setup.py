"""Build the package from settings.ini.

The version, the requirements and the rest are written there, once.
"""

import configparser
from pathlib import Path

from setuptools import find_namespace_packages, setup

ROOT = Path(__file__).resolve().parent
STATUSES = {"3": "3 - Alpha", "4": "4 - Beta", "5": "5 - Production/Stable"}


def read_settings(path):
    "The settings as a dict; a clear error for a key that is missing."
    parser = configparser.ConfigParser(delimiters=["="], interpolation=None)
    if not parser.read(path, encoding="utf-8"):
        raise FileNotFoundError(
            f"{path} is missing: "
            "setup.py reads the version and the requirements from it"
        )
    found = parser["DEFAULT"]
    needed = (
        "lib_name version min_python tested_pythons description author author_email "
        "keywords user repo branch requirements console_scripts status"
    ).split()
    if missing := [key for key in needed if key not in found]:
        raise KeyError(f"{path} has no value for: {', '.join(missing)}")
    return found


def requirements(text):
    "One requirement a line, in the order given."
    return [line.strip() for line in text.splitlines() if line.strip()]


cfg = read_settings(ROOT / "settings.ini")
address = f"https://github.com/{cfg['user']}/{cfg['repo']}"
extras = {
    key.removesuffix("_requirements"): requirements(text)
    for key, text in cfg.items()
    if key.endswith("_requirements")
}

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=cfg["author"],
    author_email=cfg["author_email"],
    url=address,
    project_urls={"Source": address, "Issues": f"{address}/issues"},
    keywords=cfg["keywords"].split(),
    classifiers=[
        f"Development Status :: {STATUSES[cfg['status']]}",
        "Intended Audience :: Developers",
        "Intended Audience :: Education",
        "Intended Audience :: Science/Research",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
        *(
            f"Programming Language :: Python :: {v}"
            for v in cfg["tested_pythons"].split()
        ),
    ],
    python_requires=f">={cfg['min_python']}",
    packages=find_namespace_packages(
        include=[cfg["lib_name"], f"{cfg['lib_name']}.*"],
        exclude=["*.__pycache__", "*.__pycache__.*"],
    ),
    package_data={
        cfg["lib_name"]: [
            "py.typed",
            "book/assignments.json",
            "book/chapters.json",
            "data/samples/*.json",
            "data/splits/*.json",
            "data/upstream.json",
            "starts/*.safetensors",
        ]
    },
    install_requires=requirements(cfg["requirements"]),
    extras_require=extras,
    entry_points={"console_scripts": requirements(cfg["console_scripts"])},
    zip_safe=False,
)
