"""Stand-in for `pulumi-resource-gcp`, the provider plugin of pulumi-gcp 10.2.0.

It creates nothing in Google Cloud: "the cloud" is a JSON file. What it is for is refusing, on a machine with
neither a Google account nor the official plugin, what Google would refuse. It judges inputs by three
sources: the types of the pulumi_gcp package, Google's published API descriptions, and rules that Google only
writes down in its documentation (each rule names its page).
"""
