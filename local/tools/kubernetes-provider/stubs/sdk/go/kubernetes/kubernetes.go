// Package kubernetes stands in for the little that the provider takes of its own SDK, whose 28 MB of
// generated Go types take longer to compile than the provider.
package kubernetes

import "reflect"

// UntypedArgs are a resource's properties, as they stand in a manifest.
type UntypedArgs map[string]any

// ElementType says what the properties resolve to.
func (UntypedArgs) ElementType() reflect.Type { return reflect.TypeFor[map[string]any]() }
