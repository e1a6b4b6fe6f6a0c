"""Stand-ins for two Pulumi programs that come with an ordinary installation of Pulumi.

`pulumi-language-python` (the language host) and `pulumi-resource-kubernetes` (the provider plugin) are
used only where the official ones are missing. Nothing of the product imports this package.
"""
