// Package java stands in for one struct of pulumi-java, whose module is not served
// by every Go proxy. The provider fills it in as schema text for SDK generation only.
package java

// PackageInfo mirrors the field names that the provider sets.
type PackageInfo struct {
	BuildFiles                      string            `json:"buildFiles,omitempty"`
	GradleNexusPublishPluginVersion string            `json:"gradleNexusPublishPluginVersion,omitempty"`
	BasePackage                     string            `json:"basePackage,omitempty"`
	Dependencies                    map[string]string `json:"dependencies,omitempty"`
}
