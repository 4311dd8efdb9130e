{{- define "ztunnel.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "ztunnel.loaderImage" -}}
{{ .Values.image.repository }}-loader:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "ztunnel.labels" -}}
app.kubernetes.io/part-of: ztunnel
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "ztunnel.node.selector" -}}
app.kubernetes.io/name: ztunnel
app.kubernetes.io/component: node
{{- end -}}

{{- define "ztunnel.control.selector" -}}
app.kubernetes.io/name: ztunnel
app.kubernetes.io/component: control
{{- end -}}

{{/* auto is true where the cluster has the kinds of the Prometheus operator. (dict "want" VALUE "context" $) */}}
{{- define "ztunnel.operator" -}}
{{- if eq (toString .want) "auto" -}}
{{- if .context.Capabilities.APIVersions.Has "monitoring.coreos.com/v1" }}true{{ end -}}
{{- else if eq (toString .want) "true" }}true{{ end -}}
{{- end -}}

{{- define "ztunnel.control.address" -}}
https://ztunnel-control.{{ .Release.Namespace }}.svc:15012
{{- end -}}

{{- define "ztunnel.xdsAddress" -}}
{{- if .Values.control.enabled }}{{ include "ztunnel.control.address" . }}{{ else }}{{ required "control.xdsAddress: control.enabled is false, so say which control plane serves, such as https://istiod.istio-system.svc:15012" .Values.control.xdsAddress }}{{ end -}}
{{- end -}}

{{- define "ztunnel.caAddress" -}}
{{- .Values.control.caAddress | default (include "ztunnel.xdsAddress" .) -}}
{{- end -}}

{{- define "ztunnel.scrape" -}}
prometheus.io/scrape: "true"
prometheus.io/port: {{ .port | quote }}
prometheus.io/path: /metrics
{{- end -}}

{{- define "ztunnel.env" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- end -}}

{{/* As ztunnel/control/deployment.py reads it. The image is the control plane's own. */}}
{{- define "ztunnel.waypoint" -}}
{{- $own := .Values.waypoint -}}
{{- $placement := dict -}}
{{- range $name := list "nodeSelector" "affinity" "tolerations" -}}
{{- with index $own $name }}{{ $_ := set $placement $name . }}{{ end -}}
{{- end -}}
{{- $env := dict "LOG_LEVEL" $own.logLevel -}}
{{- range $name, $value := $own.env }}{{ $_ := set $env $name (toString $value) }}{{ end -}}
{{- dict
    "control" (include "ztunnel.xdsAddress" .)
    "authority" (include "ztunnel.caAddress" .)
    "pullPolicy" .Values.image.pullPolicy
    "pullSecrets" .Values.image.pullSecrets
    "replicas" (int $own.replicas)
    "graceSeconds" (int $own.terminationGracePeriodSeconds)
    "scraped" .Values.monitoring.annotations
    "priorityClass" $own.priorityClassName
    "env" $env
    "resources" $own.resources
    "podLabels" $own.podLabels
    "podAnnotations" $own.podAnnotations
    "placement" $placement
  | toJson -}}
{{- end -}}

{{/* The cluster autoscaler evicts pods of DaemonSets from a node that it gives up together with all others, which would
have no proxy then while they end. */}}
{{- define "ztunnel.stays" -}}
cluster-autoscaler.kubernetes.io/enable-ds-eviction: "false"
{{- end -}}

{{- define "ztunnel.holder.selector" -}}
app.kubernetes.io/name: ztunnel
app.kubernetes.io/component: holder
{{- end -}}

{{/* true where the next node proxy starts beside the one that serves. */}}
{{- define "ztunnel.node.surges" -}}
{{- $rolling := .Values.node.updateStrategy.rollingUpdate | default dict -}}
{{- if and (eq .Values.node.updateStrategy.type "RollingUpdate") (not (has (toString $rolling.maxSurge) (list "0" "0%" "<nil>" ""))) }}true{{ end -}}
{{- end -}}

{{/* Where node proxies are replaced one after the other, so would be holders, and both be away at once. */}}
{{- define "ztunnel.holder.updateStrategy" -}}
{{- if .Values.holder.updateStrategy }}{{ toYaml .Values.holder.updateStrategy }}
{{- else if include "ztunnel.node.surges" . -}}
type: RollingUpdate
rollingUpdate:
  maxSurge: 1
  maxUnavailable: 0
{{- else -}}
type: OnDelete
{{- end -}}
{{- end -}}

{{/* A service account's token, as every pod has it that is not told otherwise. */}}
{{- define "ztunnel.api" -}}
projected:
  sources:
    - serviceAccountToken:
        expirationSeconds: 3607
        path: token
    - configMap:
        name: kube-root-ca.crt
        items:
          - key: ca.crt
            path: ca.crt
    - downwardAPI:
        items:
          - path: namespace
            fieldRef:
              fieldPath: metadata.namespace
{{- end -}}
