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
