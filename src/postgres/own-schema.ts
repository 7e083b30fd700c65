/** The schema that holds the sidecar's own tables and functions and, by default, the state too. */
export const ownSchema = "plugin_sidecar";
