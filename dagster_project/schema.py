def configuration_schema():
    return {}
