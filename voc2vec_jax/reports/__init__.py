"""Tables, figures and the page, from finished runs."""
