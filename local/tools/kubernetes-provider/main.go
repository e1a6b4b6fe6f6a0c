// Command pulumi-resource-kubernetes is Pulumi's own kubernetes provider, started as its own main package
// starts it. That package embeds two files that its Makefile makes, which nobody can add to a module in
// Go's cache. Here they are beside this file, during the build only (local/kubernetes_provider.py).
package main

import (
	_ "embed"

	"github.com/pulumi/pulumi-kubernetes/provider/v4/pkg/provider"
	"github.com/pulumi/pulumi-kubernetes/provider/v4/pkg/version"
)

//go:embed schema.json
var schema []byte

//go:embed terraform-mapping.json
var terraformMapping []byte

func main() {
	provider.Serve("kubernetes", version.Version, schema, terraformMapping)
}
