def retry_after(headers, wall_now):
    import email.utils

    v = headers.get("Retry-After")
    if v is None:
        return None
    if v.isdigit():
        return float(v)
    try:
        return email.utils.parsedate_to_datetime(v).timestamp() - wall_now
    except Exception:
        return None
