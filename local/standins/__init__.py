"""Stand-ins for Pulumi programs that an ordinary installation of Pulumi has or fetches by itself.

`pulumi-language-python` (the language host, which also runs policy packs) and the provider plugin
`pulumi-resource-gcp` are used only where the official ones are missing. Nothing of the product imports this
package.
"""
