"""How Argo CD tells whether an InferenceService serves: a health check for versions whose own is wrong.

KServe 0.15.1 and newer give every InferenceService the condition `Stopped: False`, and the check that Argo
CD brings took any False for a fault: the service stays "Progressing", and a sync that waits for it never
ends (https://github.com/kserve/kserve/issues/4791, https://github.com/argoproj/argo-cd/pull/25312). Read in
its sources: 2.14.21, 3.0.20, 3.1.9 and 3.2.0 have the old check; 3.0.23, 3.1.16, 3.2.1, 3.2.2 and 3.6.1 the
new one. Neither calls a model Healthy that has no pod, as it is idle (`modelcar:idle`) or as its autoscaler
keeps none, once KServe looks at it: its model is pending then (0.19, PropagateModelStatus), which is
`InProgress`. KServe reports Ready then, and no more once a pod is to start.
"""

from __future__ import annotations

import textwrap

#: Argo CD reads the check from it: https://argo-cd.readthedocs.io/en/stable/operator-manual/health/
CONFIG_MAP = "argocd-cm"
KEY = "resource.customizations.health.serving.kserve.io_InferenceService"
#: Beside the Application, `argocd/APPLICATION.yaml`. No object, and no .yaml: applied as one by mistake, it
#: would take the other settings out of Argo CD's ConfigMap.
FILE = "inferenceservice-health.patch"

#: Lua, as Argo CD runs it: `obj` is the InferenceService, and a table with status and message comes back.
HEALTH = """\
local health = {status = "Progressing", message = "KServe has not reported on it yet"}
if obj.status == nil or obj.status.conditions == nil then
  return health
end
local found = {}
for _, condition in ipairs(obj.status.conditions) do
  found[condition.type] = condition
end
if found.Stopped ~= nil and found.Stopped.status == "True" then
  return {status = "Suspended", message = "stopped (serving.kserve.io/stop)"}
end
local predictor, class = obj.spec.predictor, nil
if predictor ~= nil and predictor.minReplicas == 0 and obj.metadata.annotations ~= nil then
  class = obj.metadata.annotations["serving.kserve.io/autoscalerClass"]
end
if class == "none" then
  return {status = "Healthy", message = "idle, as declared: it keeps no pod"}
end
local ready, model = found.Ready, obj.status.modelStatus
local transition = model ~= nil and model.transitionStatus or "UpToDate"
if transition == "BlockedByFailedLoad" or transition == "InvalidSpec" then
  local why = model.lastFailureInfo ~= nil and model.lastFailureInfo.message or ""
  return {status = "Degraded", message = transition .. ": " .. why}
end
if ready == nil then
  return health
end
if ready.status == "True" and transition == "UpToDate" then
  return {status = "Healthy", message = "it serves"}
end
local states = model ~= nil and model.states or nil
if class == "external" and ready.status == "True" and transition == "InProgress"
    and states ~= nil and states.targetModelState == "Pending" then
  return {status = "Healthy", message = "no pod now: its autoscaler keeps none"}
end
health.message = (ready.reason or transition) .. ": " .. (ready.message or "not ready yet")
return health
"""


def patch(namespace: str) -> str:
    """Return a patch of Argo CD's ConfigMap with the check; namespace: of Argo CD."""
    command = f"kubectl -n {namespace} patch configmap {CONFIG_MAP} --patch-file {FILE}"
    return (
        "# For Argo CD before 3.0.23, 3.1.16 and 3.2.1, which call a model of KServe 0.15.1 and newer\n"
        "# Progressing for ever, and for models without a pod with any version. Apply it once:\n"
        f"#   {command}\n"
        "data:\n"
        f"  {KEY}: |\n"
        f"{textwrap.indent(HEALTH, '    ')}"
    )
