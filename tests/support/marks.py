"""Which tests are marked, by what they need and by how long they take.

Given by path and by fixture, so that `make test-fast` can leave them out: see pyproject.toml. The
tests of one group run in one process, one after another: they share a server, or the fixtures and
the loaded models of their file.
"""

from __future__ import annotations

# Folders and files below tests/, or single tests in them.
PATHS = {
    "ray": (
        "gpu/test_on_ray.py",
        "jobs/execution/test_cpus.py",
        "jobs/execution/test_crowded_gpu.py",
        "jobs/execution/test_growing_cluster.py",
        "jobs/execution/test_kill.py",
        "jobs/execution/test_raylets.py",
        "jobs/planning/test_user_code.py::test_files_of_the_current_folder_hide_no_library_of_rays_workers",
        "jobs/rows/test_ray_dataset.py",
        "test_interrupts.py::test_a_cell_that_was_interrupted_as_ray_was_joined_runs_again",
        "test_notebook.py::test_a_notebook_runs_in_its_folder",
        "test_readme.py::test_every_block_of_python_runs",
    ),
    "kill": (
        "actors/compute/test_cascade.py::test_a_row_that_kills_the_process_of_a_later_task_is_found",
        "actors/faults/test_poison_rows.py",
        "actors/faults/test_process_end.py",
        "actors/test_operator.py::test_a_row_that_asks_its_process_to_end_fails_alone",
        "actors/test_operator.py::test_rows_that_kill_fail_alone",
        "actors/test_operator.py::test_two_calls_share_the_process_and_survive_the_row_of_one",
        "actors/storage/test_filesystem.py::test_a_file_is_whole_or_not_there_when_its_writer_is_killed",
        "jobs/execution/test_kill.py",
        "jobs/execution/test_killer_rows.py",
        "jobs/execution/test_late_worker.py",
        "jobs/execution/test_raylets.py",
        "jobs/execution/test_s3.py::test_killed_at_any_moment_the_same_command_ends_with_every_row_once",
        "jobs/execution/test_supervisor.py",
        "jobs/rows/test_python_rows.py::test_killed_while_it_is_stored_every_row_is_there_once",
        "jobs/rows/test_ray_dataset.py::test_killed_while_it_is_stored_every_row_is_there_once",
        "jobs/output/test_lease.py::test_a_second_run_is_refused_and_a_killed_one_is_replaced_at_once",
        "jobs/output/test_lease.py::test_an_interrupted_run_gives_its_lease_back",
        "jobs/test_retry.py::test_killed_at_random_moments_every_row_is_there_once",
        "jobs/test_submit.py::test_it_takes_code_along_and_resumes_after_each_kill",
    ),
    # A new Python that imports torch, large texts, models that are compiled or many.
    "slow": (
        "actors/compute/test_forward_pass.py::test_every_chunk_has_its_own_answer_whatever_happens",
        "actors/compute/test_forward_pass.py::test_when_the_machines_memory_ends_the_run_goes_on_with_a_smaller_budget",
        "actors/faults/test_attempt_files.py",
        "actors/faults/test_watchdog.py",
        "actors/sources/test_bundles.py::test_few_files_have_their_own_parts_and_very_many_share_some",
        "actors/sources/test_kept_streams.py",
        "actors/sources/test_values.py::test_a_large_input_keeps_what_its_first_rows_did_not_show",
        "actors/sources/test_webdataset.py::test_of_very_many_shards_none_is_read_to_be_cut",
        "actors/storage/test_remote_folder.py::test_one_process_fetches_while_others_wait",
        "actors/storage/test_web_files.py::test_each_split_is_read",
        "jobs/cli/test_command_line.py::test_a_run_goes_on_when_its_messages_cannot_be_written",
        "jobs/cli/test_command_line.py::test_closed_streams_lead_nowhere",
        "jobs/cli/test_command_line.py::test_the_module_of_a_verb_is_the_verb",
        "jobs/cli/test_error_messages.py::test_the_bar_moves_twice_a_second_and_nothing_asks_for_ipywidgets",
        "jobs/execution/test_progress.py",
        "jobs/execution/test_single_process.py",
        "jobs/monitoring/test_watch_run.py",
        "jobs/output/test_error_limit.py::test_dead_rows_are_judged_at_the_end",
        "jobs/output/test_lease.py::test_a_killed_process_that_is_not_yet_waited_for_is_dead",
        "jobs/planning/test_find_model.py::test_a_model_on_the_hub_is_checked_by_its_header",
        "jobs/planning/test_find_model.py::test_the_driver_of_a_run_on_ray_says_the_same_without_torch",
        "jobs/planning/test_missing_libraries.py::test_a_finished_output_needs_no_library",
        "jobs/planning/test_missing_libraries.py::test_a_media_task_without_its_extra_is_told_before_anything_is_imported",
        "jobs/planning/test_missing_libraries.py::test_media_columns_need_their_library_if_a_job_reads_them",
        "jobs/planning/test_missing_libraries.py::test_no_model_is_refused_that_can_be_loaded",
        "jobs/planning/test_missing_libraries.py::test_without_pillow_restored_pipelines_and_workers_say_that_they_need_it",
        "jobs/planning/test_model_conventions.py::test_a_model_of_the_hub_is_followed_like_a_folder",
        "jobs/planning/test_user_code.py",
        "jobs/rows/test_frames.py::test_it_is_read_like_parquet",
        "jobs/rows/test_hf_datasets.py::test_values_of_a_stream_may_be_null_in_some_rows",
        "jobs/rows/test_hub_dataset.py::test_a_dataset_split_is_read_in_one_commit",
        "jobs/rows/test_standard_input.py",
        "jobs/submission/test_follow_log.py::test_all_lines_come_once",
        "jobs/test_old_outputs.py",
        "jobs/test_preview.py::test_no_look_needs_an_output",
        "jobs/test_preview.py::test_torch_and_transformers_are_left_as_the_program_set_them",
        "jobs/test_push.py",
        "jobs/test_retry.py::test_any_rows_in_any_splits_over_any_number_of_retries",
        "jobs/test_retry.py::test_killed_before_any_of_its_writes_nothing_is_lost",
        "jobs/test_run.py::test_a_job_that_is_simply_wrong_stops_early",
        "jobs/test_strange_rows.py",
        "jobs/test_tune.py",
        "jobs/test_verify.py::test_a_sample_again_by_plain_transformers",
        "pipelines/adapter/on_device/test_picture_resize.py::test_levels_are_those_of_pillow",
        "pipelines/adapter/test_token_outputs.py",
        "pipelines/embeddings/test_sentence_transformers_config.py::test_plain_transformers_give_the_same_when_a_sample_is_verified",
        "pipelines/embeddings/test_sentence_transformers_config.py::test_vectors_are_those_of_encode",
        "pipelines/embeddings/test_static_feature_extraction.py::test_another_task_is_refused",
        "pipelines/engines/generation/test_batched_generation.py",
        "pipelines/engines/generation/test_beam_search.py",
        "pipelines/engines/generation/test_continuous_generation.py",
        "pipelines/engines/generation/test_image_prompts.py",
        "pipelines/engines/generation/test_lengths_that_count.py",
        "pipelines/engines/generation/test_pause.py",
        "pipelines/engines/generation/test_slot_cache.py",
        "pipelines/engines/graphs/test_graphs.py",
        "pipelines/engines/speech/test_speech_generation.py::test_an_interrupt_ends_what_is_in_flight",
        "pipelines/engines/speech/test_speech_generation.py::test_long_recordings",
        "pipelines/engines/speech/test_speech_generation.py::test_recordings_of_one_window",
        "pipelines/engines/test_compiled.py",
        "pipelines/engines/test_encoder.py::test_a_head_that_looks_at_all_tokens_gets_them_chunk_by_chunk",
        "pipelines/engines/test_encoder.py::test_packed_answers_are_those_of_each_sequence_alone",
        "pipelines/engines/test_host_waits.py::test_a_token_of_all_texts_is_waited_for_once",
        "pipelines/engines/test_simulated_gpu.py",
        "pipelines/loading/test_class_source.py::test_decorated_classes_need_what_transformers_says_they_need",
        "pipelines/loading/test_class_source.py::test_tables_are_those_of_transformers",
        "pipelines/restored/test_context_windows.py",
        "pipelines/restored/test_generation.py",
        "pipelines/restored/test_images.py::test_answers_equal_those_of_4_57",
        "pipelines/restored/test_question_answering.py",
        "pipelines/tasks/test_answers.py",
        "pipelines/tasks/test_audio.py",
        "pipelines/tasks/test_chats.py",
        "pipelines/tasks/test_image_questions.py",
        "pipelines/tasks/test_image_texts.py",
        "pipelines/tasks/test_mask_generation.py",
        "pipelines/tasks/test_question_answering.py",
        "pipelines/tasks/test_text_generation.py",
        "pipelines/tasks/test_token_classification.py",
        "pipelines/tasks/test_vision.py",
        "pipelines/test_dummy_rows.py::test_a_model_that_works_answers_dummy_rows",
        "pipelines/test_plugin_tasks.py::test_a_registered_task_runs_in_a_worker_process",
        "pipelines/test_registry.py::test_every_task_of_transformers_and_every_restored_one_is_there",
        "pipelines/test_registry.py::test_the_tasks_of_transformers_are_known_without_importing_it",
        "pipelines/text/test_cross_encoder_config.py::test_the_score_is_by_the_activation_that_the_folder_names",
        "pipelines/text/test_entities.py::test_they_are_those_of_transformers",
        "pipelines/text/test_tokenizer_keywords.py::test_a_models_own_width_is_that_of_the_vectors",
        "pipelines/text/test_windows.py::test_long_texts_are_classified_by_windows",
        "pipelines/text/test_word_table.py::test_the_tokens_are_those_of_the_whole",
        "pipelines/text/test_word_table.py::test_tokens_are_where_the_tokenizer_says",
        "test_configs.py",
        "test_interrupts.py",
        "test_notebook.py::test_a_notebook_runs_in_its_folder",
        "test_readme.py::test_every_block_of_bash_runs",
        "test_readme.py::test_the_three_ways_of_the_readme_give_the_same",
    ),
}
FIXTURES = {"object_store": "s3", "ray_head": "ray", "ray_session": "ray"}
GROUPS = {"object_store": "servers", "ray_head": "servers", "ray_session": "ray"}
# They take long.
_LONG = {"ray", "s3", "kill"}
# Each of its tests has its model to itself: two processes share the file.
_SPLIT = "test_configs.py"
# Its tests, which take long, share what was run in a folder.
_WHOLE = "test_readme.py"


def marks_of(path: str, name: str, fixtures: list[str]) -> set[str]:
    """Return the marks of a test. path: of its file, below tests/. name: without parameters."""
    names = {path, f"{path}::{name}", path.rpartition("/")[0]}
    named = {mark for mark, paths in PATHS.items() if names & set(paths)}
    return named | {FIXTURES[fixture] for fixture in fixtures if fixture in FIXTURES}


def group_of(path: str, marks: set[str], fixtures: list[str]) -> str | None:
    """Return the group of a test with these marks, or None if it may run anywhere."""
    shared = next((GROUPS[fixture] for fixture in fixtures if fixture in GROUPS), None)
    if shared or path == _WHOLE:
        return shared or path
    return None if marks & _LONG or path == _SPLIT else path


def rank_of(marks: set[str], group: str | None) -> tuple[int, str]:
    """Return where a test stands in the order of all, in which groups stay together.

    What takes long comes first: at the end one process would run the last of them alone.
    """
    if marks & _LONG or group == _WHOLE:
        return 0, group or "~"
    return 1 if "slow" in marks else 2, group or "~"
