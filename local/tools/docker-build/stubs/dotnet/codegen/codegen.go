// Package codegen stands in for one struct of pulumi-language-dotnet, whose module is not
// served by every Go proxy. The provider fills it in as schema text for SDK generation only.
package codegen

// CSharpPackageInfo mirrors the field names that the provider sets.
type CSharpPackageInfo struct {
	RespectSchemaVersion bool              `json:"respectSchemaVersion,omitempty"`
	PackageReferences    map[string]string `json:"packageReferences,omitempty"`
}
