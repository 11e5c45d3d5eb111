"""This file is about the names of metrics: what dashboards, alerts and the planner may rely on.

`VLLM_*` have vLLM's names and meanings, summed over the fleet, label `model_name`: dashboards and
gateways made for vLLM work. `EPIDOTE_*` say what vLLM has no words for: roles, modality,
resumes. Labels have bounded values; no request ids, no worker ids.
"""

# From the gateway, per request.
VLLM_TTFT_SECONDS = "vllm:time_to_first_token_seconds"
VLLM_ITL_SECONDS = "vllm:inter_token_latency_seconds"
VLLM_TPOT_SECONDS = "vllm:time_per_output_token_seconds"  # older name of the former
VLLM_REQUEST_TPOT_SECONDS = "vllm:request_time_per_output_token_seconds"
VLLM_E2E_SECONDS = "vllm:e2e_request_latency_seconds"
VLLM_QUEUE_SECONDS = "vllm:request_queue_time_seconds"
VLLM_REQUEST_PROMPT_TOKENS = "vllm:request_prompt_tokens"
VLLM_REQUEST_GENERATION_TOKENS = "vllm:request_generation_tokens"
VLLM_PROMPT_TOKENS = "vllm:prompt_tokens"  # exposed with _total, as all counters
VLLM_GENERATION_TOKENS = "vllm:generation_tokens"
VLLM_REQUEST_SUCCESS = "vllm:request_success"  # label finished_reason

# From the workers' reports, summed over the fleet; counters also over workers that ended.
VLLM_NUM_REQUESTS_RUNNING = "vllm:num_requests_running"
VLLM_NUM_REQUESTS_WAITING = "vllm:num_requests_waiting"
# A fraction in [0, 1], in spite of its name; of the fullest decoder, which is the one that hurts.
VLLM_KV_CACHE_USAGE = "vllm:kv_cache_usage_perc"
VLLM_PREFIX_CACHE_QUERIES = "vllm:prefix_cache_queries"  # tokens
VLLM_PREFIX_CACHE_HITS = "vllm:prefix_cache_hits"  # tokens
VLLM_NUM_PREEMPTIONS = "vllm:num_preemptions"
VLLM_CACHE_CONFIG_INFO = "vllm:cache_config_info"  # labels block_size, num_gpu_blocks

# Per request, by {model_name, modality}; modality is text or image.
EPIDOTE_TTFT_SECONDS = "epidote_ttft_seconds"
EPIDOTE_ITL_SECONDS = "epidote_itl_seconds"
EPIDOTE_E2E_SECONDS = "epidote_e2e_seconds"
EPIDOTE_ARRIVALS = "epidote_arrivals"  # prompts to answer, counted before anything is computed
EPIDOTE_TEXT_TOKENS = "epidote_request_text_tokens"  # the prompt without its media's tokens
EPIDOTE_MEDIA = "epidote_request_media"  # media of a prompt
EPIDOTE_MEDIA_TOKENS = "epidote_request_media_tokens"  # of all media of a prompt
EPIDOTE_OUTPUT_TOKENS = "epidote_request_output_tokens"
EPIDOTE_REQUESTS = "epidote_requests"  # also endpoint, status (an HTTP status)
EPIDOTE_REQUEST_ERRORS = "epidote_request_errors"  # by code, the API's error code
EPIDOTE_REQUESTS_IN_FLIGHT = "epidote_requests_in_flight"  # admitted
EPIDOTE_REQUESTS_QUEUED = "epidote_requests_queued"  # waiting for admission
EPIDOTE_REQUEST_BYTES = "epidote_request_bytes"  # held for requests: bodies, prepared pictures
EPIDOTE_ADMISSION_SECONDS = "epidote_admission_seconds"  # waited for admission
EPIDOTE_MEDIA_SECONDS = "epidote_media_seconds"  # fetching, decoding and resizing all of a request
EPIDOTE_RESUMES = "epidote_resumes"  # requests continued after losing a worker
EPIDOTE_MOVES = "epidote_moves"  # requests continued after a drain or a role switch
EPIDOTE_GATEWAYS = "epidote_gateways"  # processes behind one port, summed up in a scrape
EPIDOTE_DISCONNECTS = "epidote_disconnects"  # clients gone before their answer's end
EPIDOTE_STAGE_QUEUE_SECONDS = "epidote_stage_queue_seconds"  # by stage, as the workers measured it
EPIDOTE_STAGE_BUSY_SECONDS = "epidote_stage_busy_seconds"

# The fleet, by role (encode | prefill | decode | all).
EPIDOTE_WORKERS = "epidote_workers"  # also state
EPIDOTE_WORKER_WAITING = "epidote_worker_waiting_requests"
EPIDOTE_WORKER_RUNNING = "epidote_worker_running_sequences"
EPIDOTE_WORKER_ENCODING = "epidote_worker_encoding_media"
EPIDOTE_WORKER_QUEUED_TOKENS = "epidote_worker_queued_prefill_tokens"
EPIDOTE_KV_BLOCKS = "epidote_kv_blocks"  # also state: free | used
EPIDOTE_MEDIA_ROWS = "epidote_media_rows"  # also state: free | used
# Pools of one worker copied into another's, by transport (shared_memory | cuda_ipc | nixl |
# ray_objects | connection), kind (kv | embeddings), direction (in | out, as the worker sees it).
EPIDOTE_TRANSFER_BYTES = "epidote_transfer_bytes"
EPIDOTE_TRANSFER_SECONDS = "epidote_transfer_seconds"  # of all copies, side by side or not
EPIDOTE_TRANSFER_COPIES = "epidote_transfer_copies"
EPIDOTE_EXPERT_TOKENS = "epidote_expert_tokens"  # by expert only, all layers; a model with experts
EPIDOTE_EXPERT_IMBALANCE = "epidote_expert_imbalance_ratio"  # of all tokens so far, as placed now
EPIDOTE_EXPERT_MOVES = "epidote_expert_moves"  # placements that came into force, over workers
EPIDOTE_ROLE_SWITCHES = "epidote_role_switches"  # by from_role, to_role, outcome: ok | rolled_back
EPIDOTE_ROLE_SWITCH_SECONDS = "epidote_role_switch_seconds"  # by phase: drain | switch | verify

# The response cache, by category (bounded by the policy).
EPIDOTE_CACHE_HITS = "epidote_cache_hits"  # also kind: exact | semantic; relaxed: true | false
EPIDOTE_CACHE_MISSES = "epidote_cache_misses"  # also why; collapsed: an equal question was running
EPIDOTE_CACHE_BYPASSES = "epidote_cache_bypasses"  # by why only: the category is not known then
EPIDOTE_CACHE_REFUSALS = "epidote_cache_refusals"  # neighbours that a guard refused, by reason
EPIDOTE_CACHE_SAVED_SECONDS = "epidote_cache_saved_seconds"  # that hits' answers once took
EPIDOTE_CACHE_SAVED_TOKENS = "epidote_cache_saved_tokens"  # generated tokens of hits
EPIDOTE_CACHE_WRONG_HITS = "epidote_cache_wrong_hits"  # reported
EPIDOTE_CACHE_HIT_RATIO = "epidote_cache_hit_ratio"  # smoothed; the planner discounts demand by it
EPIDOTE_CACHE_THRESHOLD = "epidote_cache_threshold"  # in force: pressure and reports included
EPIDOTE_CACHE_ENTRIES = "epidote_cache_entries"
EPIDOTE_CACHE_BYTES = "epidote_cache_bytes"
EPIDOTE_CACHE_EVICTIONS = (
    "epidote_cache_evictions"  # by reason: room | expired | lost | invalidated
)
EPIDOTE_CACHE_LOOKUP_SECONDS = "epidote_cache_lookup_seconds"  # embedding included
EPIDOTE_CACHE_PRESSURE = "epidote_cache_pressure"  # that counts, 0 to 1; no category
EPIDOTE_CACHE_STORE_FAILURES = "epidote_cache_store_failures"  # no category
EPIDOTE_CACHE_POLICY_FAILURES = "epidote_cache_policy_failures"  # refused policies; no category

# From the operator, by {namespace, service}.
OPERATOR_DESIRED = "epidote_operator_desired_workers"  # also role
OPERATOR_READY = "epidote_operator_ready_workers"  # also role
OPERATOR_SWITCHING = "epidote_operator_switching_workers"  # also role: where they are going
OPERATOR_WORKERS = "epidote_operator_worker_pods"
OPERATOR_GPUS = "epidote_operator_gpus"
OPERATOR_GPU_BUDGET = "epidote_operator_gpu_budget"
OPERATOR_CONDITION = "epidote_operator_condition"  # also type, reason
OPERATOR_SLO = "epidote_operator_slo_seconds"  # also target: ttft | tpot; what was promised
OPERATOR_ATTAINMENT = "epidote_operator_attainment_ratio"  # also target: ttft | tpot
OPERATOR_DECISIONS = "epidote_operator_decisions"  # also reason; changed decisions only
OPERATOR_ACTIONS = "epidote_operator_actions"  # also verb
OPERATOR_TICK_FAILURES = "epidote_operator_tick_failures"
OPERATOR_EVENTS_LOST = "epidote_operator_events_lost"  # that the API server refused
OPERATOR_TICK_SECONDS = "epidote_operator_tick_seconds"  # without service
OPERATOR_LEADS = "epidote_operator_leads"  # without service
OPERATOR_STANDS_BY = "epidote_operator_stands_by"  # without service; for another release
