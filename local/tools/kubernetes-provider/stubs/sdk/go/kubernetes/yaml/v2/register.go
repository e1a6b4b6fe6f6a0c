// Package v2 registers what a manifest holds, for the components that expand manifests in the provider.
package v2

import (
	"fmt"

	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"
)

// RegisterResource registers an object under the type that the SDK's 167 typed resources have: of API
// version and kind, where the core group is written out. The SDK differs in the Go type of the result
// alone, of which the components hand on no more than the reference.
func RegisterResource(ctx *pulumi.Context, apiVersion, kind, name string, props pulumi.Input,
	opts ...pulumi.ResourceOption) (pulumi.CustomResource, error) {
	if apiVersion == "v1" {
		apiVersion = "core/v1"
	}
	var resource pulumi.CustomResourceState
	err := ctx.RegisterResource(fmt.Sprintf("kubernetes:%s:%s", apiVersion, kind), name, props, &resource, opts...)
	if err != nil {
		return nil, err
	}
	return &resource, nil
}
