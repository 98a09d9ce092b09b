"""One TOML file, environment and flags become one checked configuration."""
