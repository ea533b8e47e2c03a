"""The paper's table and figures, from the models that are installed, as a page and a table that anyone can read."""
