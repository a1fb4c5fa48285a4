"""Configuration of Sphinx: ``nox -s docs``. The Markdown pages are also readable as they are."""

import cachefs

project = "cachefs"
author = "The cachefs authors"
release = version = cachefs.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": False}
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# Attributes of dataclasses would otherwise be documented twice: by the class and one by one.
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"cachefs {release}"
html_show_copyright = False
