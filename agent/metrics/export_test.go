package metrics

import "github.com/prometheus/client_golang/prometheus"

// Registry returns where the metrics are.
func (m *Metrics) Registry() prometheus.Gatherer { return m.registry }
