"""One table per subject: method, path, first version, function (async)."""
