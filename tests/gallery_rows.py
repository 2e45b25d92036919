"""Hand-made rows of studies for the gallery's tests."""


def floor(value, spread=0.02, **more):
    made = {"rms_gradient": value, "rms_gradient_low": value * (1 - spread), "rms_gradient_high": value * (1 + spread)}
    return made | {"stationary": True, "outcome": "floor"} | more


def altered(data, change, **wanted):
    """The data with a change of the rows that have the wanted values."""
    told = [row | change if all(row[k] == x for k, x in wanted.items()) else row for row in data["rows"]]
    return {**data, "rows": told}


def broken(figure, data):
    """What of the claims the data do not bear out."""
    return [text for text, true in figure.claims(data) if not true]
